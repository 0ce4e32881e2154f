"""Properties of an image file and statistics of its bands."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dataset.file_content import stored_kind
from dataset.image_files import exif_orientation
from util.config.data import Data

STEPS = 32
"""Steps that a band's range is divided into."""


class ImageFacts(NamedTuple):
    """Properties of one image file."""

    size: str
    """Width and height as a viewer shows them, such as 640x480."""
    mode: str
    """Pillow's name such as RGB, L (grey) or P (palette); "6 bands" where Pillow cannot read it."""
    bits: int
    """Bits of each channel in the file."""
    exif: int
    """EXIF orientation: 1 is upright, 2 to 8 are turned or mirrored."""
    shape: str
    """landscape, portrait or square."""
    brightness: float
    """Mean grey value, in [0, 255]."""
    contrast: float
    """Standard deviation of the grey values."""


def image_facts(path: Path, image: Image.Image) -> ImageFacts:
    """Return the properties of a readable file and of the RGB image in it."""
    width, height = image.size
    shape = "square" if width == height else "landscape" if width > height else "portrait"
    grey = np.asarray(image.convert("L"))
    return ImageFacts(
        f"{width}x{height}", *stored_kind(path), exif_orientation(path), shape,
        float(grey.mean()), float(grey.std()),
    )  # fmt: skip


class BandFacts(NamedTuple):
    """Counts for the C bands of an image, or sums over images."""

    steps: np.ndarray
    """`[C, 32]`: pixels by value, in equal steps of the range."""
    ends: np.ndarray
    """`[C, 2]`: pixels at the lowest and at the highest value, where sensors saturate."""
    constant: np.ndarray
    """`[C]`: images in which the band has one value everywhere."""
    sums: np.ndarray
    """`[C, 2]`: sums of the values in [0, 1] and of their squares."""

    def mean_and_std(self, dates: int) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of each band `[C / dates]`, over all dates."""
        pixels = self.steps.sum(1).reshape(dates, -1).sum(0)
        mean, square = (self.sums.reshape(dates, -1, 2).sum(0) / np.maximum(pixels, 1)[:, None]).T
        return mean, np.sqrt(np.maximum(square - mean**2, 0))


def band_facts(image: np.ndarray, nodata_mask: np.ndarray | None = None) -> BandFacts:
    """Count values of an image `[H, W, C]`, uint8 or floats in [0, 1], except pixels without data,
    `nodata_mask` `[H, W]`."""
    bands = image.reshape(-1, image.shape[2]).T
    if nodata_mask is not None:
        bands = bands[:, ~nodata_mask.ravel()]
    whole = image.dtype == np.uint8
    levels = np.ascontiguousarray(bands) if whole else (bands * 255).astype(np.uint8)
    counts = np.stack([np.bincount(band, minlength=256) for band in levels])
    steps = counts.reshape(len(bands), STEPS, -1).sum(2)
    if whole:  # the counts hold the rest
        constant = ((counts > 0).sum(1) <= 1).astype(np.int64)
        sums = counts @ np.arange(256)[:, None] ** [1, 2] / [255, 255**2]
        return BandFacts(steps, counts[:, [0, 255]], constant, sums)
    ends = np.stack([(bands == 0).sum(1), (bands == 1).sum(1)], axis=1)
    constant = (bands == bands[:, :1]).all(axis=1).astype(np.int64)
    squares = np.einsum("cn,cn->c", bands, bands, dtype=np.float64)
    sums = np.stack([bands.sum(1, dtype=np.float64), squares], axis=1)
    return BandFacts(steps, ends, constant, sums)


def sum_bands(facts: Iterable[BandFacts | None]) -> BandFacts | None:
    """Return sums over images; None without an image."""
    known = [fact for fact in facts if fact]
    sums = (np.sum(parts, axis=0) for parts in zip(*known, strict=True))
    return BandFacts(*sums) if known else None


def band_names(data: Data) -> list[str]:
    """Name the bands of an image, in their order."""
    if isinstance(data.bands, str):
        return {"rgb": ["red", "green", "blue"], "grey": ["grey"]}[data.bands]
    return [f"band {number}" for number in data.bands]


def channel_names(data: Data) -> list[str]:
    """Name the channels of a sample, in their order."""
    names = band_names(data)
    if data.dates == 1:
        return names
    return [f"{date} {name}" for date in ("earlier", "later") for name in names]
