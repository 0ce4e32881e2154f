"""Opens the files of samples, as the config says."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dataset.bands import read_valid_bands
from dataset.image_files import size_mismatch
from dataset.mask_files import LabelLookup, open_mask
from dataset.samples import Sample
from util.config.data import Data
from util.config.types import IGNORE
from util.errors import UserError


class Reader:
    """Images as arrays of bands, those of all dates; masks as class indices in mode L, 255 =
    ignore."""

    def __init__(self, data: Data):
        self.data, self.labels = data, LabelLookup(data)

    def image(self, sample: Sample) -> np.ndarray:
        """The bands of a sample `[H, W, C]`, of a pair the earlier image's, then the later one's.

        Raises `UserError` as `read_bands` does, and where the two differ in size.
        """
        return read_dates(sample.image_files, self.data)

    def unlabeled(self, sample: Sample) -> tuple[np.ndarray, Image.Image | None]:
        """An image, and a mask with 255 where it has no data; None for nowhere."""
        image, void = read_valid_dates(sample.image_files, self.data)
        return image, None if void is None else Image.fromarray(void * np.uint8(IGNORE))

    def mask(self, sample: Sample) -> Image.Image:
        """Its classes; raises `UserError` as `open_mask` does."""
        return open_mask(sample.mask_file, self.labels)

    def both(self, sample: Sample) -> tuple[np.ndarray, Image.Image]:
        """Image and classes, ignored where the image has no data.

        Raises `UserError` when either is faulty or their sizes differ.
        """
        image, void = read_valid_dates(sample.image_files, self.data)
        mask = self.mask(sample)
        if size_of(image) != mask.size:
            raise size_mismatch(sample.image_file, sample.mask_file, size_of(image), mask.size)
        if void is not None:
            mask.paste(IGNORE, mask=Image.fromarray(void))
        return image, mask


def size_of(image: np.ndarray) -> tuple[int, int]:
    """(width, height) of `[H, W, C]`."""
    return image.shape[1], image.shape[0]


def read_dates(files: Sequence[Path], data: Data) -> np.ndarray:
    """The bands of an image, or of two of one place, `[H, W, C]`; raises as `Reader.image`."""
    return read_valid_dates(files, data)[0]


def read_valid_dates(files: Sequence[Path], data: Data) -> tuple[np.ndarray, np.ndarray | None]:
    """The same, and where some date has no data: `[H, W]`, bool; None for nowhere."""
    images, voids = zip(*(read_valid_bands(file, data) for file in files), strict=True)
    refuse_other_size(files, [size_of(image) for image in images])
    some = [void for void in voids if void is not None]
    return (
        np.concatenate(images, axis=2) if len(images) > 1 else images[0],
        np.logical_or.reduce(some) if some else None,
    )


def refuse_other_size(files: Sequence[Path], sizes: Sequence[tuple[int, int]]) -> None:
    """Raise `UserError` where the two images of a pair differ in size."""
    if len(set(sizes)) > 1:
        (first, second), ((w, h), (w2, h2)) = files, sizes
        raise UserError(
            f"{second}: the later image is {w2}x{h2}, the earlier one {first} is {w}x{h}; expected "
            "two images of one place and size"
        )
