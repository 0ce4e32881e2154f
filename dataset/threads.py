"""Calls of a function for many files, in threads."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from tqdm.contrib.concurrent import thread_map

from dataset.image_files import decoding_threads
from util.errors import UserError

R = TypeVar("R")
T = TypeVar("T")


def map_in_threads(
    function: Callable[[T], R], items: Sequence[T], files: Sequence[Path], title: str
) -> list[R]:
    """Return the result for each item, with a progress bar.

    `files`: images as large as those that the function decodes or draws; empty for none.
    """
    threads = decoding_threads(files)
    return thread_map(function, items, max_workers=threads, desc=title, disable=None, leave=False)


def try_in_threads(
    function: Callable[[T], R], items: Sequence[T], files: Sequence[Path], title: str
) -> list[R | UserError]:
    """Return as `map_in_threads`, with the `UserError` of an item in place of its result."""

    def result(item: T) -> R | UserError:
        try:
            return function(item)
        except UserError as error:
            return error

    return map_in_threads(result, items, files, title)
