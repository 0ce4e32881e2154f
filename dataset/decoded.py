"""Decoded labelled images that the data workers of a process keep for each other.

There are few of them, and each is seen many times: Pascal's 92 come up a hundred times an epoch.
"""

import mmap
from multiprocessing import Lock

import numpy as np
from PIL import Image

from util.errors import UserError

Pair = tuple[Image.Image, Image.Image]
"""An RGB image and its class indices in mode L, of one size."""


class DecodedPairs:
    """Pairs by number, in `capacity` bytes of memory that forked workers share; raises `UserError`
    where there is not so much.

    The first that fit are kept for good: of shuffled passes over more than fits, no other choice
    serves more.  A worker that is not forked keeps none.
    """

    def __init__(self, count: int, capacity: int):
        self._count, self._capacity = count, capacity
        # No file behind it, so that the size of /dev/shm does not matter; pages cost when written.
        try:
            pixels = mmap.mmap(-1, max(capacity, 1))
        except OSError as error:
            raise UserError(
                f"data.cache_mb: found {capacity / 2**20:g}, which is not to be had ({error}); use "
                "less, or 0 to keep nothing"
            ) from None
        self._pixels = np.frombuffer(pixels, np.uint8)
        places = mmap.mmap(-1, 24 * (count + 1))
        self._places = np.frombuffer(places, np.int64).reshape(-1, 3)
        """By number: width, height (0 for what is not kept), first byte; last the bytes used."""
        self._lock = Lock()

    def __reduce__(self) -> tuple[type["DecodedPairs"], tuple[int, int]]:
        return type(self), (self._count, 0)

    def get(self, number: int) -> Pair | None:
        with self._lock:
            width, height, begin = self._places[number].tolist()
        if not width:
            return None
        middle, end = begin + 3 * width * height, begin + 4 * width * height
        image = self._pixels[begin:middle].reshape(height, width, 3)
        mask = self._pixels[middle:end].reshape(height, width)
        return Image.fromarray(image), Image.fromarray(mask)

    def add(self, number: int, image: Image.Image, mask: Image.Image) -> None:
        """Keep a pair, if there is room for it."""
        with self._lock:
            begin = int(self._places[-1, 2])
            end = begin + 4 * image.width * image.height
            if self._places[number, 0] or end > self._capacity:
                return
            both = np.asarray(image).ravel(), np.asarray(mask).ravel()
            self._pixels[begin:end] = np.concatenate(both)
            self._places[number] = *image.size, begin
            self._places[-1, 2] = end
