"""Place of a TIFF's pixels on earth, from its GeoTIFF tags."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from dataset.image_files import reporting_unreadable
from dataset.tiff import TIFF_SUFFIXES
from util.errors import UserError

WIDTH, HEIGHT = 256, 257
PIXEL_SCALE, TIEPOINT, TRANSFORMATION, GEO_KEYS = 33550, 33922, 34264, 34735
"""TIFF tags: ModelPixelScale, ModelTiepoint, ModelTransformation, GeoKeyDirectory."""
RASTER_TYPE, GEOGRAPHIC, PROJECTED = 1025, 2048, 3072
"""Keys in GeoKeyDirectory: GTRasterType, and the EPSG codes of coordinate systems."""
PIXEL_IS_POINT = 2
"""Value of GTRasterType: coordinates are those of pixels' centres, not of their corners."""
USER_DEFINED = 32767
"""Code of a coordinate system without an EPSG code."""
BIG_TIFF = 43


class Grid(NamedTuple):
    """Place of pixels on earth."""

    size: tuple[int, int]
    """(width, height)."""
    crs: int
    """EPSG code of the coordinate system, or `USER_DEFINED`."""
    to_world: np.ndarray
    """`[3, 3]`: (column, row, 1) of a pixel's corner to (x, y, 1)."""


def refuse_other_grid(files: Sequence[Path]) -> None:
    """Raise `UserError` for a TIFF in another coordinate system than the first file, or with pixels
    more than half a pixel away from its pixels; files without georeferencing pass."""
    first, *others = files
    grid = read_grid(first)
    for file in others:
        other = read_grid(file) if grid else None
        if grid and other and (problem := difference(grid, other)):
            raise UserError(
                f"{file}: {problem} {first} by georeferencing; expected the same grid. Fix: warp "
                "it (gdalwarp) or, if only its georeferencing is wrong, remove that (gdal_edit.py "
                "-unsetgt)"
            )


def difference(one: Grid, other: Grid) -> str:
    """Describe how the second grid differs from the first; "" for equal ones."""
    if one.crs != other.crs and USER_DEFINED not in (one.crs, other.crs):
        return "another coordinate system than"
    width, height = one.size
    corners = np.array([(0, 0, 1), (width, 0, 1), (width, height, 1)]).T
    in_first = np.linalg.solve(one.to_world, other.to_world @ corners)
    distance = np.linalg.norm(in_first - corners, axis=0).max()
    return f"{distance:.1f} pixels off" if distance > 0.5 else ""


def read_grid(path: Path) -> Grid | None:
    """Return the place of a TIFF's pixels; None for other files, and without coordinate system or
    transformation."""
    if path.suffix.lower() in TIFF_SUFFIXES:
        with suppress(UserError), reporting_unreadable(path):  # missing or damaged tags
            return _grid(_tags(path))
    return None


def _tags(path: Path) -> ImageFileDirectory_v2:
    """Read the tags of the first page, also of TIFFs whose pixels Pillow cannot read."""
    with path.open("rb") as file:
        header = file.read(8)
        if header[2] == BIG_TIFF:
            header += file.read(8)
        tags = ImageFileDirectory_v2(header)
        file.seek(tags.next)
        tags.load(file)
    return tags


def _grid(tags: ImageFileDirectory_v2) -> Grid | None:
    # Each key: number, tag that holds its value (0: the key itself), count, value.
    rows = np.reshape(tags[GEO_KEYS], (-1, 4))[1:].tolist()
    keys = {key: value for key, tag, _, value in rows if tag == 0}
    if TRANSFORMATION in tags:
        to_world = np.reshape(tags[TRANSFORMATION], (4, 4))[np.ix_((0, 1, 3), (0, 1, 3))]
    else:
        (width, height), (column, row, _, x, y) = tags[PIXEL_SCALE][:2], tags[TIEPOINT][:5]
        to_world = np.array(
            [(width, 0, x - column * width), (0, -abs(height), y + row * abs(height)), (0, 0, 1)]
        )
    if keys.get(RASTER_TYPE) == PIXEL_IS_POINT:
        to_world = to_world @ [(1, 0, -0.5), (0, 1, -0.5), (0, 0, 1)]
    if np.array_equal(to_world, np.eye(3)):  # GDAL's transformation of a file without one
        return None
    np.linalg.inv(to_world)  # raises an error for pixels without area
    crs = keys.get(PROJECTED) or keys[GEOGRAPHIC]
    return Grid((tags[WIDTH], tags[HEIGHT]), crs, to_world)
