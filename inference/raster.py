"""TIFFs and GeoTIFFs of any size, read window by window by rasterio, which is optional."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dataset import tiff
from dataset.bands import choose_bands, picture, to_range
from dataset.image_files import image_size, orientation, reading
from dataset.reader import refuse_other_size
from util.config.data import Data
from util.errors import UserError

CACHE = 256
"""MiB in which GDAL keeps decoded tiles."""
MAX_TILE = 2**30
"""Bytes of a tile or strip, the least that can be decoded at once."""


class Rect(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int

    def within(self, other: "Rect") -> tuple[slice, slice]:
        """Its rows and columns in an array of what another rectangle holds."""
        top, left = self.top - other.top, self.left - other.left
        return slice(top, top + self.height), slice(left, left + self.width)


def is_larger(path: Path, megapixels: int) -> bool:
    """Whether a file is a TIFF of more pixels; one that is damaged is not."""
    if path.suffix.lower() not in tiff.TIFF_SUFFIXES:
        return False
    try:
        width, height = image_size(path)
    except UserError:
        return False
    return width * height > megapixels * 10**6


@contextmanager
def open_raster(path: Path, data: Data) -> Iterator["Raster"]:
    """A TIFF, to be read window by window.

    Raises `UserError` without rasterio, for a damaged file, and for one that would be read
    otherwise than `dataset.bands.read_bands` does.
    """
    library = rasterio(path)
    with library.Env(GDAL_CACHEMAX=CACHE), warnings.catch_warnings():
        warnings.simplefilter("ignore", library.errors.NotGeoreferencedWarning)
        with reading(path):
            file = library.open(path, driver="GTiff")
        with file:
            yield Raster(path, file, data)


class Raster:
    """An open raster: windows of the bands that the config names."""

    def __init__(self, path: Path, file: Any, data: Data):
        self.path, self.file, self.data = path, file, data
        self.height, self.width = file.shape
        kinds = [interpretation.name for interpretation in file.colorinterp]
        self.has_palette = kinds == ["palette"] and isinstance(data.bands, str)
        count = 1 if kinds == ["gray", "alpha"] else len(kinds)
        self._check(3 if self.has_palette else count)
        numbers = {"rgb": [1, 2, 3][:count], "grey": [1]}
        self.numbers = numbers[data.bands] if isinstance(data.bands, str) else [*data.bands]

    def _check(self, count: int) -> None:
        """Raise `UserError` for what `read_bands` refuses, and for what it alone can read; `count`:
        of the bands that are colours."""
        file, data = self.file, self.data
        choose_bands(np.empty((1, 1, count), file.dtypes[0]), data.bands, self.path)
        stored = file.tags(ns="IMAGE_STRUCTURE") | file.tags(1, ns="IMAGE_STRUCTURE")
        odd = {
            "is turned by its EXIF orientation": orientation(self.path) != 1,
            "has white as 0": "MINISWHITE" in stored,
            "is in CMYK": stored.get("SOURCE_COLOR_SPACE") == "CMYK",
            f"has {stored.get('NBITS')} bits a pixel": stored.get("NBITS") in ("1", "2", "4"),
        }
        for what in (what for what, found in odd.items() if found):
            raise UserError(
                f"{self.path}: {what}, which is not read by windows; rewrite it as it is shown, "
                "with 8 bits or more"
            )
        height, width = file.block_shapes[0]
        if height * width * np.dtype(file.dtypes[0]).itemsize > MAX_TILE:
            raise UserError(
                f"{self.path}: stored as one piece of {width}x{height} pixels, which cannot be "
                "read by windows; rewrite it in tiles (gdal_translate -co TILED=YES)"
            )

    def read(self, rect: Rect) -> np.ndarray:
        """The bands in a window, `[h, w, C]`, as `read_bands` returns them; 0 without data."""
        valid = self.valid(rect)
        with reading(self.path):
            values = self._values(rect)
        if valid is not None:
            values[~valid] = 0
        pixels = to_range(values, self.data, self.path)
        if valid is not None:
            pixels[~valid] = 0
        return pixels

    def valid(self, rect: Rect) -> np.ndarray | None:
        """`[h, w]`: where there are data, by the file's own nodata value, mask or alpha; None for
        everywhere."""
        if all(flag.name == "all_valid" for flags in self.file.mask_flag_enums for flag in flags):
            return None
        with reading(self.path):
            return self.file.dataset_mask(window=self.window(rect)) > 0

    def preview(self, step: int) -> Image.Image:
        """The whole in RGB, one pixel for each square of `step`."""
        rect = Rect(0, 0, self.height, self.width)
        shape = -(-self.height // step), -(-self.width // step)
        with reading(self.path):
            values = self._values(rect, shape)
            values[self.file.dataset_mask(out_shape=shape) == 0] = 0
        return picture(to_range(values, self.data, self.path), self.data)

    def window(self, rect: Rect) -> Any:
        """As rasterio has it."""
        return rasterio(self.path).windows.Window(rect.left, rect.top, rect.width, rect.height)

    def _values(self, rect: Rect, shape: tuple[int, int] | None = None) -> np.ndarray:
        """The values of the bands in a window, `[h, w, C]`."""
        out = len(self.numbers), *(shape or (rect.height, rect.width))
        values = self.file.read(self.numbers, window=self.window(rect), out_shape=out)
        values = np.moveaxis(values, 0, -1).copy()
        if self.has_palette:
            colours = self.file.colormap(1)
            table = np.array([colours.get(i, (0, 0, 0, 255))[:3] for i in range(256)], np.uint8)
            return table[values[..., 0]]
        return values.repeat(3, axis=2) if self.data.bands == "rgb" and out[0] == 1 else values


@contextmanager
def open_dates(paths: Sequence[Path], data: Data) -> Iterator["Dates"]:
    """`open_raster` of the one image of a sample, or of both of a pair."""
    with ExitStack() as stack:
        yield Dates([stack.enter_context(open_raster(path, data)) for path in paths])


class Dates:
    """Rasters of one place, read as one: the bands of one date after those of the other.

    Raises `UserError` where they differ in size or, by their coordinates, do not cover the same
    pixels.
    """

    def __init__(self, rasters: Sequence[Raster]):
        self.rasters, self.first = rasters, rasters[0]
        self.height, self.width = self.first.height, self.first.width
        refuse_other_size([r.path for r in rasters], [(r.width, r.height) for r in rasters])
        for raster in rasters[1:]:
            refuse_other_place(self.first, raster)

    def read(self, rect: Rect) -> np.ndarray:
        """The bands of all dates in a window, `[h, w, C]`."""
        return np.concatenate([raster.read(rect) for raster in self.rasters], axis=2)

    def valid(self, rect: Rect) -> np.ndarray | None:
        """`[h, w]`: where all dates have data; None for everywhere."""
        known = [raster.valid(rect) for raster in self.rasters]
        some = [valid for valid in known if valid is not None]
        return np.logical_and.reduce(some) if some else None

    def previews(self, step: int) -> list[Image.Image]:
        """`Raster.preview` of each."""
        return [raster.preview(step) for raster in self.rasters]


def refuse_other_place(first: Raster, second: Raster) -> None:
    """Raise `UserError` where both have coordinates, and the second's pixels lie more than half a
    pixel beside the first's."""
    if not (first.file.crs and second.file.crs):
        return
    beside = math.inf
    if first.file.crs == second.file.crs:
        corners = [(0, 0), (first.height, first.width)]
        places = [second.file.xy(*corner, offset="ul") for corner in corners]
        there = [first.file.index(x, y, op=lambda number: number) for x, y in places]
        beside = max(math.dist(a, b) for a, b in zip(corners, there, strict=True))
    if beside > 0.5:
        far = f"{beside:.1f} pixels" if math.isfinite(beside) else "in another coordinate system,"
        raise UserError(
            f"{second.path}: lies {far} beside {first.path}; expected two images of the same "
            "pixels: warp it onto the grid of the first (gdalwarp)"
        )


def rasterio(path: Path) -> Any:
    """The library; raises `UserError` where it is not installed."""
    try:
        import rasterio
        import rasterio.windows
    except ImportError:
        raise UserError(
            f"{path}: a TIFF that is predicted by windows needs rasterio: "
            "pip install -r requirements-extra.txt"
        ) from None
    return rasterio
