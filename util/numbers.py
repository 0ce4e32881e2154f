"""Arithmetic of whole numbers."""


def ceil_div(number: int, divisor: int) -> int:
    """Return `number` / `divisor`, rounded up."""
    return -(-number // divisor)
