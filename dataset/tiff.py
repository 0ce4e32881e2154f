"""TIFFs of any depth and number of bands, by tifffile, which is optional."""

from pathlib import Path
from typing import Any

import numpy as np

from util.errors import UserError

SUFFIXES = {".tif", ".tiff"}
FLAT = {"YX": (0, 1), "YXS": (0, 1, 2), "YXC": (0, 1, 2), "SYX": (1, 2, 0), "CYX": (1, 2, 0)}
"""The axes of a TIFF that is an image, as tifffile names them -> height, width, bands."""


def read_tiff(path: Path) -> np.ndarray:
    """The values as they are stored, `[H, W]`, or `[H, W, N]` of several bands.

    Raises `UserError` without tifffile and for a volume; for a damaged file whatever tifffile does.
    """
    with _library(path).TiffFile(path) as file:
        series = file.series[0]
        return series.asarray().transpose(_flat_axes(series, path))


def tiff_header(path: Path) -> tuple[tuple[int, int], int]:
    """(width, height) as they are stored and EXIF orientation; raises as `read_tiff` does."""
    with _library(path).TiffFile(path) as file:
        series = file.series[0]
        height, width = (series.shape[axis] for axis in _flat_axes(series, path)[:2])
        return (width, height), int(series.keyframe.tags.valueof("Orientation", 1))


def tiff_kind(path: Path) -> tuple[str, int]:
    """The number of bands in words, and the bits of each; raises as `read_tiff` does."""
    with _library(path).TiffFile(path) as file:
        series = file.series[0]
        bands = (series.shape[axis] for axis in _flat_axes(series, path)[2:])
        count = next(bands, 1)
        return f"{count} band{'s' * (count > 1)}", 8 * series.dtype.itemsize


def tiff_bands(path: Path) -> tuple[str | tuple[int, ...], bool]:
    """The bands of a file as `data.bands` would name them, transparency left out, and whether the
    first three of numbered ones are red, green and blue; raises as `read_tiff` does."""
    with _library(path).TiffFile(path) as file:
        series, page = file.series[0], file.series[0].keyframe
        count = next((series.shape[axis] for axis in _flat_axes(series, path)[2:]), 1)
        coloured = page.photometric.name == "RGB"
        extra = [kind.name != "UNSPECIFIED" for kind in page.extrasamples]  # the last ones
        clear = [False] * (count - len(extra)) + extra
    numbers = tuple(band for band, is_alpha in enumerate(clear, start=1) if not is_alpha)
    if coloured and numbers == (1, 2, 3):
        return "rgb", False
    return ("grey" if count == 1 else numbers), coloured


def _flat_axes(series: Any, path: Path) -> tuple[int, ...]:
    if series.axes not in FLAT:
        raise UserError(
            f"{path}: holds an array of {'x'.join(map(str, series.shape))} (axes {series.axes}), "
            "expected height x width and bands as samples; of a volume, one slice a file"
        )
    return FLAT[series.axes]


def _library(path: Path) -> Any:
    try:
        import tifffile
    except ImportError:
        raise UserError(
            f"{path}: this TIFF needs tifffile, as Pillow reads 8-bit colour and single bands "
            "alone: pip install -r requirements-extra.txt"
        ) from None
    return tifffile
