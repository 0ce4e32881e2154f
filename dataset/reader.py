"""Opens the files of samples, as the config says."""

import numpy as np
from PIL import Image

from dataset.bands import read_bands
from dataset.files import open_mask, size_mismatch
from dataset.labels import Labels
from dataset.samples import Sample
from util.config import Data


class Reader:
    """Images as arrays of bands, masks as class indices in mode L, 255 = ignore."""

    def __init__(self, data: Data):
        self.data, self.labels = data, Labels(data)

    def image(self, sample: Sample) -> np.ndarray:
        """The bands of a sample `[H, W, C]`; see `read_bands`, also for what is raised."""
        return read_bands(sample.image_file, self.data)

    def mask(self, sample: Sample) -> Image.Image:
        """Its classes; raises `UserError` as `open_mask` does."""
        return open_mask(sample.mask_file, self.labels)

    def pair(self, sample: Sample) -> tuple[np.ndarray, Image.Image]:
        """Image and classes; raises `UserError` when either is faulty or their sizes differ."""
        image, mask = self.image(sample), self.mask(sample)
        if size_of(image) != mask.size:
            raise size_mismatch(sample.image_file, sample.mask_file, size_of(image), mask.size)
        return image, mask


def size_of(image: np.ndarray) -> tuple[int, int]:
    """(width, height) of `[H, W, C]`."""
    return image.shape[1], image.shape[0]
