"""TIFFs of any depth and number of bands, by tifffile, which is optional."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from util.errors import UserError, counted
from util.optional import import_optional

TIFF_SUFFIXES = {".tif", ".tiff", ".msk"}
"""Suffixes of TIFFs, and of the nodata mask that GDAL writes next to a raster."""
FLAT_AXES = {"YX": (0, 1), "YXS": (0, 1, 2), "YXC": (0, 1, 2), "SYX": (1, 2, 0), "CYX": (1, 2, 0)}
"""The axes of a TIFF that is an image, as tifffile names them -> height, width, bands."""
SIDEWAYS_ORIENTATIONS = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""
GDAL_NODATA_TAG = 42113
"""GDAL's tag: the value of pixels without data, as text."""
MASK_PAGE = 4
"""Bit of the tag NewSubfileType: a page that is the mask of another."""
REDUCED_OR_MASK = 1 | MASK_PAGE
"""Bits of pages that are a smaller copy of another, or its mask."""


class FileBands(NamedTuple):
    """Bands of a file."""

    selection: str | tuple[int, ...]
    """Bands without alpha, as `data.bands` would name them."""
    in_colour: bool = False
    """True where the first three of numbered bands are red, green and blue."""
    alpha: tuple[int, ...] = ()
    """Numbers of the bands of a TIFF that are alpha."""


class TiffContent(NamedTuple):
    """Content of a TIFF as it is stored."""

    values: np.ndarray
    """`[H, W]` or `[H, W, N]`."""
    alpha: list[int]
    """Indices of alpha bands."""
    nodata: str
    """GDAL's tag; "" without it."""
    masks: list[np.ndarray]
    """`[H, W]` each, 0 without data."""
    orientation: int
    """Of EXIF, not applied."""


def read_tiff(path: Path, may_have_pages: bool, max_megapixels: int) -> TiffContent:
    """Read values as they are stored; `may_have_pages`: pages of one size may be the bands.

    Raises `UserError` without tifffile, for a large image, a volume and several images; for a
    damaged file the errors of tifffile.
    """
    with _opened(path) as file:
        series = _series(file, path)
        size, orientation = _size_and_orientation(series)
        refuse_large(path, size, max_megapixels)
        count = number_of_images(map(_subfile_type, series.pages))
        if count > 1 and not may_have_pages:
            raise several_images_error(path, count)
        values = _decoded(series, path).transpose(FLAT_AXES[series.axes])
        masks = _mask_pages(file, values.shape[:2], path)
        nodata = series.keyframe.tags.valueof(GDAL_NODATA_TAG, "")
        return TiffContent(values, _alpha(series), str(nodata), masks, orientation)


def mask_pages(path: Path) -> list[np.ndarray]:
    """Read the masks `[H, W]` of the first page, 0 without data; raises as `read_tiff` does."""
    with _opened(path) as file:
        page = file.pages[0]  # its shape begins with the bands where they are planes
        return _mask_pages(file, (page.imagelength, page.imagewidth), path)


def _mask_pages(file: Any, size: tuple[int, ...], path: Path) -> list[np.ndarray]:
    pages = [page for page in file.pages if _subfile_type(page) & MASK_PAGE and page.shape == size]
    return [_decoded(page, path) for page in pages]


def _decoded(source: Any, path: Path) -> np.ndarray:
    """Return the values of a page or series; raises `UserError` where a decoder is missing."""
    try:
        return source.asarray()
    except (ValueError, ImportError) as error:
        if isinstance(error, ValueError) and "imagecodecs" not in str(error):
            raise
        page = source.keyframe
        kind = f"{page.compression.name} compression"
        if page.predictor > 1:
            kind += " with a predictor"
        raise UserError(
            f"{path}: {kind} needs imagecodecs. Fix: pip install imagecodecs, or save the file "
            "with Deflate compression and without predictor"
        ) from None


def nodata_mask_of(
    values: np.ndarray, nodata: object, masks: Iterable[np.ndarray]
) -> np.ndarray | None:
    """Return a bool mask `[H, W]`, True where all bands of `values` (`[H, W]` or `[H, W, N]`) have
    the nodata value, or a mask is 0; None if there are none."""
    nodata_mask = np.zeros(values.shape[:2], bool)
    value = nodata_value(nodata)
    if value is not None:
        same = is_nodata(values, value)
        nodata_mask |= same.all(axis=2) if same.ndim == 3 else same
    for mask in masks:
        nodata_mask |= mask == 0
    return nodata_mask if nodata_mask.any() else None


def is_nodata(values: np.ndarray, value: float) -> np.ndarray:
    """Return where values are the nodata value, which may be NaN."""
    if values.dtype.kind == "f":
        value = values.dtype.type(value)
    return values == value if value == value else np.isnan(values)


def nodata_value(nodata: object) -> float | None:
    """Return the number in GDAL's tag; None without one."""
    try:
        return float(str(nodata).strip("\0 "))
    except ValueError:
        return None


def count_images(path: Path) -> int:
    """Count the pages that are not a smaller copy or mask; raises as `read_tiff` does."""
    with _opened(path) as file:
        return number_of_images(map(_subfile_type, file.pages))


def _subfile_type(page: Any) -> int:
    """Return NewSubfileType; 0 for the frames of a series, which are read without tags."""
    return getattr(page, "subfiletype", 0)


def number_of_images(kinds: Iterable[int]) -> int:
    """Count the values of NewSubfileType that are not a smaller copy or mask."""
    return sum(not kind & REDUCED_OR_MASK for kind in kinds)


def several_images_error(path: Path, count: int) -> UserError:
    return UserError(f"{path}: holds {count} images, expected one. Fix: save each as its own file")


def refuse_large(path: Path, size: tuple[int, int], max_megapixels: int) -> None:
    """Raise `UserError` for an image of too many pixels to be decoded."""
    width, height = size
    if width * height > max_megapixels * 10**6:
        raise UserError(
            f"{path}: {width}x{height} pixels, expected at most {max_megapixels} "
            "million. Fix: raise data.max_megapixels (prepare init: --max-megapixels) if you trust "
            "the file, or cut it into tiles"
        )


def tiff_header(path: Path) -> tuple[tuple[int, int], int]:
    """Return (width, height) as shown, and EXIF orientation; raises as `read_tiff` does."""
    with _opened(path) as file:
        return _size_and_orientation(_series(file, path))


def _size_and_orientation(series: Any) -> tuple[tuple[int, int], int]:
    height, width = (series.shape[axis] for axis in FLAT_AXES[series.axes][:2])
    orientation = int(series.keyframe.tags.valueof("Orientation", 1))
    return (height, width) if orientation in SIDEWAYS_ORIENTATIONS else (width, height), orientation


def tiff_kind(path: Path) -> tuple[str, int]:
    """Return the number of bands in words, and their bits; raises as `read_tiff` does."""
    with _opened(path) as file:
        series = _series(file, path)
        return counted(_band_count(series), "band"), 8 * series.dtype.itemsize


def tiff_bands(path: Path) -> FileBands:
    """Return the bands of a TIFF; raises as `read_tiff` does."""
    with _opened(path) as file:
        series = _series(file, path)
        is_rgb = series.keyframe.photometric.name == "RGB"
        count = _band_count(series)
        alpha = _alpha(series)
    numbers = tuple(band + 1 for band in range(count) if band not in alpha)
    clear = tuple(band + 1 for band in alpha)
    if is_rgb and numbers == (1, 2, 3):
        return FileBands("rgb", alpha=clear)
    return FileBands("grey" if numbers == (1,) else numbers, is_rgb, clear)


def _series(file: Any, path: Path) -> Any:
    """Return the one series in a file, an image; raises `UserError` for several and for volumes."""
    images = [s for s in file.series if not s.keyframe.subfiletype & REDUCED_OR_MASK]
    if len(images) > 1:
        raise several_images_error(path, len(images))
    if not images:
        raise ValueError("no image in it")
    (series,) = images
    if series.axes in FLAT_AXES:
        return series
    found = f"an array of {'x'.join(map(str, series.shape))}"
    if len(series.shape) == 3 and series.axes.endswith("YX"):
        count, height, width = series.shape
        found = f"{counted(count, 'page')} of {width}x{height}"
    raise UserError(
        f"{path}: holds {found}; expected one image, height x width (x bands). Fix: save each "
        "page, or each slice of a volume, as its own file"
    )


def _band_count(series: Any) -> int:
    return next((series.shape[axis] for axis in FLAT_AXES[series.axes][2:]), 1)


def _alpha(series: Any) -> list[int]:
    """Return the indices of the bands that are alpha; extra samples are the last bands."""
    extra = [kind.name for kind in series.keyframe.extrasamples]
    first = _band_count(series) - len(extra)
    return [band for band, name in enumerate(extra, first) if name != "UNSPECIFIED"]


def _opened(path: Path) -> Any:
    """Open a TIFF with tifffile; raises `UserError` where it is not installed."""
    tifffile = import_optional("tifffile", f"{path}: reading this kind of TIFF")
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # errors are raised as well
    return tifffile.TiffFile(path)
