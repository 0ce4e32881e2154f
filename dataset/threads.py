"""Calls of a function for many files, in threads."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from tqdm.contrib.concurrent import thread_map

from dataset.image_files import decoding_threads

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
