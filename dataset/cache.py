"""Shared memory for decoded images of the data workers of a process.

Labelled images are few and each is used often: Pascal's 92 occur a hundred times an epoch.
"""

import mmap
from collections.abc import Sequence
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dataset.image_files import PROBED_HEADERS, image_size
from dataset.reader import Reader
from dataset.samples import Sample
from dataset.split_files import Splits
from util.config.data import Data
from util.errors import UserError
from util.numbers import evenly_spaced
from util.workers import START_METHOD

DecodedSample = tuple[np.ndarray, Image.Image | None]
"""The bands of an image `[H, W, C]`, and its class indices in mode L; without a mask, 255 where the
image has no data."""


class CacheBytes(NamedTuple):
    """Bytes in which the images of each split are kept."""

    labeled: int
    unlabeled: int
    val: int


class SharedCache:
    """Images by number, in `capacity` bytes of memory that forked workers share.

    Images are kept in order of arrival until the memory is full; with shuffled epochs no eviction
    policy does better. Pickling drops the content. Raises `UserError` where the memory cannot be
    allocated.
    """

    def __init__(self, count: int, capacity: int, data: Data, masks: bool):
        self._arguments = count, 0, data, masks
        self.capacity = capacity
        self._masks = masks
        self._channels = data.channels
        self._type = np.dtype(np.uint8 if data.image_range is None else np.float32)
        # Anonymous memory is not limited by /dev/shm; a page is allocated when it is written.
        try:
            pixels = mmap.mmap(-1, max(capacity, 1))
        except OSError as error:
            raise UserError(
                f"data.cache_mb: cannot allocate {capacity / 2**20:g} MiB of shared memory "
                f"({error}). Fix: lower it, or set 0"
            ) from None
        self._pixels = np.frombuffer(pixels, np.uint8)
        rows = mmap.mmap(-1, 24 * (count + 1))
        self._rows = np.frombuffer(rows, np.int64).reshape(-1, 3)
        """Rows by image number: width (0: not kept), height, first byte; last row: bytes used."""
        self._lock = get_context(START_METHOD).Lock()

    def __reduce__(self) -> tuple[type["SharedCache"], tuple[int, int, Data, bool]]:
        return type(self), self._arguments

    def get(self, number: int) -> DecodedSample | None:
        with self._lock:
            width, height, begin = self._rows[number].tolist()
        if not width:
            return None
        middle = begin + self._bytes(width, height)
        image = self._pixels[begin:middle].view(self._type).reshape(height, width, -1)
        if not self._masks:
            return image, None
        mask = self._pixels[middle : middle + width * height].reshape(height, width)
        return image, Image.fromarray(mask)

    def add(self, number: int, image: np.ndarray, mask: Image.Image | None) -> None:
        """Keep an image, and its mask, if there is room for them."""
        height, width, _ = image.shape
        with self._lock:
            begin = int(self._rows[-1, 2])
            middle = begin + self._bytes(width, height)
            end = middle + width * height * self._masks
            aligned_end = end + -end % self._type.itemsize
            if self._rows[number, 0] or aligned_end > self.capacity:
                return
            self._pixels[begin:middle].view(self._type)[:] = image.ravel()
            if mask is not None:
                self._pixels[middle:end] = np.asarray(mask).ravel()
            self._rows[number] = width, height, begin
            self._rows[-1, 2] = aligned_end

    def _bytes(self, width: int, height: int) -> int:
        return width * height * self._channels * self._type.itemsize


class DecodedSamples(Sequence[DecodedSample]):
    """Images of a split, with masks if `masks`, decoded on access and kept while there is room."""

    def __init__(self, reader: Reader, samples: Sequence[Sample], masks: bool, capacity: int = 0):
        self._reader = reader
        self._samples = samples
        self._masks = masks
        self._decoded = SharedCache(len(samples), capacity, reader.data, masks)

    def __len__(self) -> int:
        return len(self._samples)

    def name(self, number: int) -> str:
        """Return the image as its split file names it."""
        return self._samples[number].image

    @property
    def share_kept(self) -> float:
        """Estimated share of the images that fit."""
        count, needed = len(self), _decoded_bytes(self._samples, self._reader.data)
        return min(count, self._decoded.capacity * count // needed) / count

    def __getitem__(self, number: Any) -> Any:
        kept = self._decoded.get(number)
        if kept is not None:
            return kept
        read = self._reader.image_and_mask if self._masks else self._reader.image_and_nodata_mask
        image, mask = read(self._samples[number])
        if self._masks or mask is None:
            self._decoded.add(number, image, mask)
        return image, mask


def cache_bytes(splits: Splits, data: Data) -> CacheBytes:
    """Divide `data.cache_mb`: labelled images first, then each other split whole or not at all."""
    total = data.cache_mb * 2**20
    labeled, *others = (_decoded_bytes(split.samples, data) if total else 0 for split in splits)
    left = total - labeled
    granted: list[int] = []
    for needed in others:
        granted.append(needed if needed <= left else 0)
        left -= granted[-1]
    return CacheBytes(total - sum(granted), *granted)


def _decoded_bytes(samples: Sequence[Sample], data: Data) -> int:
    """Estimate the bytes of a decoded split from the headers of some images, plus a tenth."""
    chosen = evenly_spaced(samples, PROBED_HEADERS)
    pixels = sum(w * h for w, h in (image_size(sample.image_file) for sample in chosen))
    per_pixel = data.channels * (1 if data.image_range is None else 4) + 1
    return int(1.1 * pixels * per_pixel * len(samples) / max(len(chosen), 1))
