"""Reading the files of samples, as the config says."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dataset.bands import read_bands, union_of_masks
from dataset.file_content import may_lack_data
from dataset.image_files import size_mismatch_error
from dataset.mask_files import LabelLookup, open_mask
from dataset.samples import Sample
from util.config.data import Data
from util.config.types import IGNORE
from util.errors import UserError


class Reader:
    """Reader of images (arrays with the bands of all dates) and of masks (class indices in mode L,
    255 = ignore)."""

    def __init__(self, data: Data):
        self.data = data
        self.labels = LabelLookup(data)

    def image(self, sample: Sample) -> np.ndarray:
        """Return the bands of a sample `[H, W, C]`, the earlier image of a pair first.

        Raises `UserError` as `read_bands` does, and where the two images differ in size.
        """
        return read_dates(sample.image_files, self.data)[0]

    def image_and_nodata_mask(self, sample: Sample) -> tuple[np.ndarray, Image.Image | None]:
        """Return an image, and a mask with 255 where it has no data (None if it has data
        everywhere)."""
        image, nodata_mask = read_dates(sample.image_files, self.data)
        if nodata_mask is None:
            return image, None
        return image, Image.fromarray(nodata_mask * np.uint8(IGNORE))

    def mask(self, sample: Sample) -> Image.Image:
        """Return the class indices of a sample; raises `UserError` as `open_mask` does."""
        return open_mask(sample.mask_file, self.labels)

    def counted_mask(self, sample: Sample) -> Image.Image:
        """Return the class indices of a sample, 255 where its image has no data; reads the image
        only if it may lack data. Raises `UserError` as `image_and_mask` does."""
        if any(map(may_lack_data, sample.image_files)):
            return self.image_and_mask(sample)[1]
        return self.mask(sample)

    def image_and_mask(self, sample: Sample) -> tuple[np.ndarray, Image.Image]:
        """Return an image and its class indices, 255 where the image has no data.

        Raises `UserError` for a faulty file and for different sizes.
        """
        image, nodata_mask = read_dates(sample.image_files, self.data)
        mask = self.mask(sample)
        if size_of(image) != mask.size:
            raise size_mismatch_error(
                sample.image_file, sample.mask_file, size_of(image), mask.size
            )
        if nodata_mask is not None:
            mask.paste(IGNORE, mask=Image.fromarray(nodata_mask))
        return image, mask


def size_of(image: np.ndarray) -> tuple[int, int]:
    """Return (width, height) of an image `[H, W, C]`."""
    return image.shape[1], image.shape[0]


def read_dates(files: Sequence[Path], data: Data) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the bands of all images of a sample `[H, W, C]`, and a bool mask `[H, W]` of pixels
    without data (None if there are none); raises as `Reader.image`."""
    images, nodata_masks = zip(*(read_bands(file, data) for file in files), strict=True)
    refuse_other_size(files, [size_of(image) for image in images])
    image = np.concatenate(images, axis=2) if len(images) > 1 else images[0]
    return image, union_of_masks(nodata_masks)


def refuse_other_size(files: Sequence[Path], sizes: Sequence[tuple[int, int]]) -> None:
    """Raise `UserError` where the two images of a pair differ in size."""
    if len(set(sizes)) > 1:
        first, second = files
        (w, h), (w2, h2) = sizes
        raise UserError(
            f"{second}: the later image is {w2}x{h2}, the earlier one {first} is {w}x{h}; expected "
            "equal sizes"
        )
