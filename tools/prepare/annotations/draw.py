"""Masks of class indices from the annotations of images."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from tools.prepare.annotations.classes import UNCOVERED, ClassTable
from tools.prepare.annotations.model import Dense, Picture, Region, Size
from tools.prepare.annotations.shapes import area, decoded
from util.config.types import IGNORE
from util.errors import UserError


class Totals(NamedTuple):
    """Sums over masks."""

    masks: int
    pixels: int
    ignored: int
    overlapping: int
    """Pixels covered by regions of several classes."""
    invisible: int
    """Regions that cover no pixel."""
    objects: Counter[str]
    """Regions by class; none in label images."""
    images: Counter[str]
    """Masks that show a class."""


def sum_up(parts: Iterable[Totals]) -> Totals:
    return Totals(*(sum(column[1:], column[0]) for column in zip(*parts, strict=True)))


def draw(picture: Picture, size: Size, table: ClassTable) -> tuple[np.ndarray, Totals]:
    """Draw regions by falling area, crowds too: the smaller one is on top.

    Args:
        size: of the image.

    Returns the mask `[H, W]`, uint8, 255 = ignore, and its counts. Raises `UserError` for a region
    that cannot be drawn and a label image of another size.
    """
    if picture.dense:
        mask = _look_up(picture.dense(), table.indices)
        if mask.shape != size[::-1]:
            raise UserError(f"{picture.file}: {mask.shape[1]}x{mask.shape[0]} pixels; its image "
                            f"has {size[0]}x{size[1]}")  # fmt: skip
    else:
        mask = np.full(size[::-1], UNCOVERED, np.uint8)
    overlapping = np.zeros(mask.shape, bool)
    shapes = [(region, _drawn(picture, region, size)) for region in picture.regions]
    areas = [area(shape) for _, shape in shapes]
    for i in sorted(range(len(shapes)), key=lambda i: -areas[i]):
        region, shape = shapes[i]
        covered, label = decoded(shape), table.indices[region.label]
        overlapping |= covered & (mask != UNCOVERED) & (mask != label)
        mask[covered] = label
    mask[mask == UNCOVERED] = table.rest
    pixels = np.bincount(mask.ravel(), minlength=256)
    return mask, Totals(
        1,
        mask.size,
        int(pixels[IGNORE]),
        int(overlapping.sum()),
        areas.count(0),
        Counter(region.label for region in picture.regions),
        Counter(name for number, name in enumerate(table.names) if pixels[number]),
    )


def _drawn(picture: Picture, region: Region, size: Size) -> dict[str, Any]:
    try:
        return region.draw(size[1], size[0])
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{picture.file}: {region.where}: {error}") from None


def _look_up(dense: Dense, index: dict[str, int]) -> np.ndarray:
    values, places = np.unique(dense.values, return_inverse=True)
    names = [dense.names.get(int(value)) for value in values]
    table = np.array([IGNORE if name is None else index[name] for name in names], np.uint8)
    return table[places.reshape(dense.values.shape)]


def labels_of(picture: Picture) -> set[str]:
    """Return the classes in an annotation; raises `UserError` for an unreadable label image."""
    if not picture.dense:
        return {region.label for region in picture.regions}
    dense = picture.dense()
    return {name for v in np.unique(dense.values) if (name := dense.names.get(int(v))) is not None}
