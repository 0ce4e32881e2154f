"""TIFFs and GeoTIFFs of any size, read in windows with rasterio, which is optional."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dataset import tiff
from dataset.bands import choose_bands, clean, rgb_preview, to_range, union_of_masks
from dataset.georeferencing import refuse_other_grid
from dataset.image_files import exif_orientation, image_size, reporting_unreadable
from dataset.reader import refuse_other_size
from util.config.data import Data
from util.errors import UserError
from util.numbers import ceil_div
from util.optional import import_optional

CACHE_MB = 256
"""MiB for decoded tiles in GDAL."""
MAX_TILE_BYTES = 2**30
"""Largest tile or strip; each is decoded as a whole."""


class Rect(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns, as rasterio takes a window."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def within(self, other: "Rect") -> tuple[slice, slice]:
        """Return its rows and columns in an array with the content of another rectangle."""
        return self._replace(top=self.top - other.top, left=self.left - other.left).window


def is_larger(path: Path, megapixels: int) -> bool:
    """Return True for a readable TIFF of more than `megapixels` million pixels."""
    if path.suffix.lower() not in tiff.TIFF_SUFFIXES:
        return False
    try:
        width, height = image_size(path)
    except UserError:
        return False
    return width * height > megapixels * 10**6


@contextmanager
def open_sample(paths: Sequence[Path], data: Data) -> Iterator["RasterSample"]:
    """Open the TIFF of a sample, or both TIFFs of a pair, to read windows of them.

    Raises `UserError` without rasterio, for a damaged file, for a kind of file whose windows would
    differ from `dataset.bands.read_bands`, and as `RasterSample`.
    """
    library = import_rasterio(paths[0])
    with library.Env(GDAL_CACHEMAX=CACHE_MB), warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("ignore", library.errors.NotGeoreferencedWarning)
        rasters = []
        for path in paths:
            with reporting_unreadable(path):
                file = library.open(path, driver="GTiff")
            rasters.append(Raster(path, stack.enter_context(file), data))
        yield RasterSample(rasters)


class Raster:
    """An open raster with the bands that the config names."""

    def __init__(self, path: Path, file: Any, data: Data):
        self.path, self.file, self.data = path, file, data
        self.height, self.width = file.shape
        kinds = [interpretation.name for interpretation in file.colorinterp]
        self.has_palette = kinds == ["palette"] and isinstance(data.bands, str)
        count = 1 if kinds == ["gray", "alpha"] else len(kinds)
        self._check(3 if self.has_palette else count)
        numbers = {"rgb": [1, 2, 3][:count], "grey": [1]}
        self.numbers = numbers[data.bands] if isinstance(data.bands, str) else [*data.bands]
        alpha = [band for band, kind in enumerate(kinds, start=1) if kind == "alpha"]
        self.masks = [band for band in alpha if band not in self.numbers][:1]
        """Band that is 0 without data; none if the config names it as data."""

    def _check(self, count: int) -> None:
        """Raise `UserError` for files that `read_bands` refuses, or that cannot be read in windows.

        `count`: number of bands, without alpha."""
        file, data = self.file, self.data
        choose_bands(np.empty((1, 1, count), file.dtypes[0]), data.bands, self.path)
        stored = file.tags(ns="IMAGE_STRUCTURE") | file.tags(1, ns="IMAGE_STRUCTURE")
        problems = {
            "is rotated by its EXIF orientation": exif_orientation(self.path) != 1,
            "has white as 0": "MINISWHITE" in stored,
            "is in CMYK": stored.get("SOURCE_COLOR_SPACE") == "CMYK",
            f"has {stored.get('NBITS')} bits a pixel": stored.get("NBITS") in ("1", "2", "4"),
        }
        if problem := next((text for text, applies in problems.items() if applies), None):
            raise UserError(
                f"{self.path}: {problem}; such files cannot be read window by window. Fix: rewrite "
                "it with 8 or more bits, as a viewer shows it"
            )
        height, width = file.block_shapes[0]
        if height * width * np.dtype(file.dtypes[0]).itemsize > MAX_TILE_BYTES:
            raise UserError(
                f"{self.path}: stored in tiles of {width}x{height} pixels, too large to be read in "
                "windows. Fix: rewrite it in smaller tiles (gdal_translate -co TILED=YES)"
            )

    def read(self, rect: Rect, shape: tuple[int, int] | None = None) -> np.ndarray:
        """Return the bands in a window `[h, w, C]` as `read_bands` does; `shape`: (h, w) of a
        smaller picture of it."""
        with reporting_unreadable(self.path):
            values = self._values(rect, shape)
        nodata_mask = self.nodata_mask(rect, shape)
        values = clean(values, nodata_mask, self.path)
        return to_range(values, nodata_mask, self.data, self.path)

    def nodata_mask(self, rect: Rect, shape: tuple[int, int] | None = None) -> np.ndarray | None:
        """Return True for the pixels of a window without data `[h, w]`, as `read_content` finds
        them: by the nodata value in all bands, mask or alpha; None if every pixel has data."""
        file, where = self.file, {"window": rect.window, "out_shape": shape}
        flags = {flag.name for flag in file.mask_flag_enums[0]}
        with reporting_unreadable(self.path):
            nodata_masks = [file.read(band, **where) == 0 for band in self.masks]
            if "per_dataset" in flags and "alpha" not in flags:  # an internal mask, or a sidecar
                nodata_masks.append(file.read_masks(1, **where) == 0)
            if file.nodata is not None:
                is_empty = np.array(True)
                for band in file.indexes:  # mostly the first one decides
                    is_empty = is_empty & tiff.is_nodata(file.read(band, **where), file.nodata)
                    if not is_empty.any():
                        break
                nodata_masks.append(is_empty)
        return union_of_masks(nodata_masks)

    def preview(self, step: int) -> Image.Image:
        """Return the whole raster in RGB, one pixel for each square of `step` pixels."""
        shape = ceil_div(self.height, step), ceil_div(self.width, step)
        return rgb_preview(self.read(Rect(0, 0, self.height, self.width), shape), self.data)

    def _values(self, rect: Rect, shape: tuple[int, int] | None = None) -> np.ndarray:
        """Return the stored values of the bands in a window, `[h, w, C]`."""
        out = len(self.numbers), *(shape or (rect.height, rect.width))
        values = self.file.read(self.numbers, window=rect.window, out_shape=out)
        values = np.moveaxis(values, 0, -1).copy()
        if self.has_palette:
            colours = self.file.colormap(1)
            table = np.array([colours.get(i, (0, 0, 0, 255))[:3] for i in range(256)], np.uint8)
            return table[values[..., 0]]
        return values.repeat(3, axis=2) if self.data.bands == "rgb" and out[0] == 1 else values


class RasterSample:
    """The raster of a sample, or a pair read as one raster with the bands of the later date last.

    Raises `UserError` for a pair that differs in size, or as `refuse_other_grid` does.
    """

    def __init__(self, rasters: Sequence[Raster]):
        self.rasters = rasters
        self.first = rasters[0]
        self.height, self.width = self.first.height, self.first.width
        refuse_other_size([r.path for r in rasters], [(r.width, r.height) for r in rasters])
        refuse_other_grid([r.path for r in rasters])

    def read(self, rect: Rect) -> np.ndarray:
        """Return the bands of all dates in a window, `[h, w, C]`."""
        return np.concatenate([raster.read(rect) for raster in self.rasters], axis=2)

    def nodata_mask(self, rect: Rect) -> np.ndarray | None:
        """Return True for pixels without data at any date, `[h, w]`; None if there are none."""
        return union_of_masks(raster.nodata_mask(rect) for raster in self.rasters)

    def previews(self, step: int) -> list[Image.Image]:
        """Return a preview of each date."""
        return [raster.preview(step) for raster in self.rasters]


def import_rasterio(path: Path) -> Any:
    """Import rasterio; raises `UserError` where it is not installed."""
    return import_optional("rasterio", f"{path}: predicting a TIFF in windows")
