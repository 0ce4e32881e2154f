"""What the bands of images hold: how their values spread, where they end, which say nothing."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from util.config.data import Data

STEPS = 32


class BandFacts(NamedTuple):
    """Of the C bands of an image, or of many images together."""

    steps: np.ndarray
    """`[C, 32]`: pixels by value, in equal steps of the range."""
    ends: np.ndarray
    """`[C, 2]`: pixels at its lowest and its highest value, where sensors saturate."""
    constant: np.ndarray
    """`[C]`: images in which the band has one value everywhere."""


def band_facts(image: np.ndarray, void: np.ndarray | None = None) -> BandFacts:
    """Facts of an image `[H, W, C]`: uint8, or floats in [0, 1]; `void`: `[H, W]`, pixels without
    data, which do not count."""
    bands = image.reshape(-1, image.shape[2]).T
    if void is not None:
        bands = bands[:, ~void.ravel()]
    top = 255 if image.dtype == np.uint8 else 1
    levels = bands if top == 255 else (bands * 255).astype(np.uint8)
    counts = np.stack([np.bincount(band, minlength=256) for band in levels])
    ends = np.stack([(bands == 0).sum(1), (bands == top).sum(1)], axis=1)
    constant = (bands == bands[:, :1]).all(axis=1).astype(np.int64)
    return BandFacts(counts.reshape(len(bands), STEPS, -1).sum(2), ends, constant)


def together(images: Iterable[BandFacts]) -> BandFacts | None:
    """Facts of many images of the same bands; None of no image."""
    total = None
    for facts in images:
        total = facts if total is None else BandFacts(*map(np.add, total, facts))
    return total


def band_names(data: Data) -> list[str]:
    """What the bands of the config are called, in the order of a sample's channels."""
    if isinstance(data.bands, str):
        names = {"rgb": ["red", "green", "blue"], "grey": ["grey"]}[data.bands]
    else:
        names = [f"band {number}" for number in data.bands]
    if data.dates == 1:
        return names
    return [f"{date} {name}" for date in ("earlier", "later") for name in names]
