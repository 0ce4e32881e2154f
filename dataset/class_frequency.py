"""Class frequencies among labelled pixels, and class weights that balance them."""

import numpy as np

from dataset.reader import Reader
from dataset.samples import Sample
from dataset.split_files import Split
from dataset.threads import map_in_threads
from util.config.data import Data


def enet_weights(pixels: np.ndarray) -> tuple[float, ...]:
    """Return 1 / ln(1.02 + share) by class (Paszke et al., 2016): from 1.4 for a class of all
    pixels to 50 for an absent class."""
    weights = 1 / np.log(1.02 + pixels / max(pixels.sum(), 1))
    return tuple(round(weight, 6) for weight in weights.tolist())


def inverse_weights(pixels: np.ndarray) -> tuple[float, ...]:
    """Return 1 / (share x classes that occur) by class: all classes weigh the same in total, a
    pixel 1 on average (King and Zeng, 2001). The weight of an absent class is 1.
    """
    share = pixels / max(pixels.sum(), 1)
    weights = np.divide(1, share * (pixels > 0).sum(), out=np.ones(len(pixels)), where=pixels > 0)
    return tuple(round(weight, 6) for weight in weights.tolist())


def class_pixels(split: Split, data: Data) -> np.ndarray:
    """Count the labelled pixels of each class in a split, `[C]`, where the images have data.

    Raises `UserError` for faulty masks, and for faulty images that may lack data.
    """
    reader = Reader(data)

    def histogram(sample: Sample) -> list[int]:
        return reader.counted_mask(sample).histogram()

    files = [sample.image_file for sample in split.samples]
    counts = map_in_threads(histogram, split.samples, files, "counting classes")
    return np.array(counts, np.int64).sum(0)[: len(data.classes)]
