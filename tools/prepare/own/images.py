"""Bands of images and the range of their values, as keys of the config."""

from collections.abc import Sequence
from math import isqrt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dataset.bands import bands_of, divisors, stored_bands
from util.errors import UserError

GRID = 32
"""Rows and columns of the pixels of an image that are measured, where there are few images."""
FEW_IMAGES = 2048
"""Number of images up to which all have `GRID` rows; more have fewer, for a constant sum."""
PERCENTILES = (0.1, 99.9)
"""Percentiles of values of more than 8 bits that become 0 and 1, as a few pixels may be dead."""


class Kind(NamedTuple):
    """Properties that all images of a dataset share."""

    bands: str | tuple[int, ...]
    """Value of `data.bands`."""
    in_colour: bool
    """True where the first three of numbered bands are red, green and blue."""
    depth: str

    def is_numbered(self) -> bool:
        return isinstance(self.bands, tuple)

    def __str__(self) -> str:
        bands = f"{len(self.bands)} bands" if self.is_numbered() else self.bands
        return f"{bands} of {self.depth}"


PHOTOGRAPH = Kind("rgb", False, "8 bits")


class ImageFile(NamedTuple):
    """Size, kind and some values of an image."""

    path: Path
    size: tuple[int, int]
    kind: Kind
    values: np.ndarray
    """`[N, C]`: stored values of some pixels with data."""
    alpha: tuple[int, ...] = ()
    """Numbers of the bands of a TIFF that are alpha."""


def grid_side(images: int) -> int:
    """Return the rows and columns of pixels to measure of each of so many images."""
    return max(4, min(GRID, isqrt(FEW_IMAGES * GRID**2 // max(1, images))))


def inspect_image(path: Path, max_megapixels: int, side: int) -> ImageFile:
    """Read an image; raises `UserError` for an unreadable or too large file, a volume, and values
    that are no numbers.

    `side`: rows and columns of pixels to keep; none of colour photographs of 8 bits, see
    `band_settings`.
    """
    bands, in_colour, alpha = bands_of(path)
    values, nodata_mask = stored_bands(path, bands, max_megapixels)  # type: ignore[arg-type]
    height, width, _ = values.shape
    whole = "8 bits" if values.dtype == np.uint8 else "more than 8 bits"
    depth = "floats" if values.dtype.kind == "f" else whole
    kind = Kind(bands, in_colour, depth)
    side = 0 if kind == PHOTOGRAPH else side
    rows, columns = (np.linspace(0, n - 1, min(n, side)).astype(int) for n in (height, width))
    some = values[np.ix_(rows, columns)].reshape(-1, values.shape[2])
    if nodata_mask is not None:
        some = some[~nodata_mask[np.ix_(rows, columns)].ravel()]
    return ImageFile(path, (width, height), kind, some, alpha)


def band_settings(images: Sequence[ImageFile], kind: Kind) -> dict[str, Any]:
    """Return the bands, and the range of their values, as keys of the data section; none for colour
    photographs of 8 bits."""
    if kind == PHOTOGRAPH:
        return {}
    values = np.concatenate([image.values for image in images]).astype(np.float64)
    if not len(values):
        raise UserError("--images: no pixel has data, by the nodata values and masks of the files")
    settings: dict[str, Any] = {} if kind.bands == "rgb" else {"bands": kind.bands}
    if kind.in_colour:
        settings["rgb_bands"] = kind.bands[:3]
    low, high = np.zeros(values.shape[1]), np.full(values.shape[1], 255.0)
    if kind.depth != "8 bits":
        # Colours keep their balance; other bands may measure anything.
        axis = 0 if kind.is_numbered() else None
        low, high = np.percentile(values, PERCENTILES, axis=axis).reshape(2, -1)
        low, high = _range_to_write(low, high)
        ranges = np.stack([low, high], axis=1).tolist()
        settings["image_range"] = ranges if axis == 0 else ranges[0]
    scaled = np.clip((values - low) / (high - low), 0, 1)
    std = scaled.std(0)
    settings["mean"] = scaled.mean(0).round(4).tolist()
    settings["std"] = divisors(std).round(4).tolist()
    return settings


def suspected_fill(images: Sequence[ImageFile], kind: Kind) -> tuple[float, float] | None:
    """Return a value that seems to mark pixels without data, and its share in its band: an end of
    the band's range, at a distance that exceeds the width of all other values. None without one."""
    if kind.depth == "8 bits":
        return None
    values = np.concatenate([image.values for image in images]).astype(np.float64)
    for band in values.T if kind.is_numbered() else [values.ravel()]:
        for end in (band.min(), band.max()):
            rest = band[band != end]
            share = 1 - rest.size / band.size
            if 100 * share > PERCENTILES[0] and rest.size:
                low, high = np.percentile(rest, PERCENTILES)
                if np.abs(rest - end).min() > high - low > 0:
                    return float(end), share
    return None


def _range_to_write(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the ends `[2, C]` of ranges: those of constant bands wider, and with 6 digits where
    this hardly changes a range."""
    high = np.where(high > low, high, low + np.maximum(1, 1e-5 * np.abs(low)))
    ends = np.stack([low, high])
    short = np.vectorize(lambda value: float(f"{value:.6g}"))(ends)
    keep = np.abs(short - ends).max(0) > 0.001 * (high - low)
    return np.where(keep, ends, short)


def common_kind(images: Sequence[ImageFile]) -> Kind:
    """Return the kind of all images; grey and coloured photographs are one.

    Raises `UserError` for images of several kinds.
    """
    kinds: dict[Kind, Path] = {}
    for image in images:
        kinds.setdefault(image.kind, image.path)
    if {(kind.depth, kind.is_numbered()) for kind in kinds} == {("8 bits", False)}:
        bands = "grey" if all(kind.bands == "grey" for kind in kinds) else "rgb"
        return Kind(bands, False, "8 bits")
    if len(kinds) > 1:
        (one, first), (other, second), *_ = kinds.items()
        raise UserError(
            f"--images: {first} is {one}, but {second} is {other}; expected one kind: convert "
            "these files, or move them away"
        )
    return next(iter(kinds))
