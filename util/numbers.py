"""Arithmetic of whole numbers, and choices by it."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def ceil_div(number: int, divisor: int) -> int:
    """Return `number` / `divisor`, rounded up."""
    return -(-number // divisor)


def evenly_spaced(items: Sequence[T], count: int) -> list[T]:
    """Return at most `count` items, evenly spaced."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]
