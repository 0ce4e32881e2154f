"""An image's annotation -> its mask of class indices."""

from collections import Counter
from typing import NamedTuple

import numpy as np

from tools.prepare.annotations.model import Dense, Picture, Size
from tools.prepare.annotations.shapes import area, decoded
from util.config.types import IGNORE
from util.errors import UserError

UNCOVERED = 254
"""In a mask that is being drawn; class indices are at most 253."""


class Drawn(NamedTuple):
    """The mask of an image, and what is to be said of it."""

    mask: np.ndarray
    """`[H, W]`, uint8: class indices, 255 = ignore."""
    objects: Counter[str]
    """Regions by class; of a label image, nothing."""
    overlapping: int
    """Pixels that regions of several classes cover."""
    invisible: int
    """Regions that cover no pixel."""


def draw(picture: Picture, size: Size, index: dict[str, int], rest: int) -> Drawn:
    """Draw regions by falling area, crowds too: the smaller one is on top.

    Args:
        size: of the image.
        index: of classes by name.
        rest: the index of pixels that no region covers.

    Raises `UserError` for a region that cannot be drawn and a label image of another size.
    """
    if picture.dense:
        mask = _look_up(picture.dense(), index)
        if mask.shape != size[::-1]:
            raise UserError(f"{picture.file}: {mask.shape[1]}x{mask.shape[0]} pixels; its image "
                            f"has {size[0]}x{size[1]}")  # fmt: skip
        return Drawn(mask, Counter(), 0, 0)
    mask = np.full(size[::-1], UNCOVERED, np.uint8)
    overlapping = np.zeros(mask.shape, bool)
    shapes = []
    for region in picture.regions:
        try:
            shapes.append((region, region.draw(*mask.shape)))
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"{picture.file}: {region.where}: {error}") from None
    areas = [area(shape) for _, shape in shapes]
    for i in sorted(range(len(shapes)), key=lambda i: -areas[i]):
        region, shape = shapes[i]
        covered, label = decoded(shape), index[region.label]
        overlapping |= covered & (mask != UNCOVERED) & (mask != label)
        mask[covered] = label
    mask[mask == UNCOVERED] = rest
    objects = Counter(region.label for region in picture.regions)
    return Drawn(mask, objects, int(overlapping.sum()), areas.count(0))


def _look_up(dense: Dense, index: dict[str, int]) -> np.ndarray:
    values, places = np.unique(dense.values, return_inverse=True)
    names = [dense.names.get(int(value)) for value in values]
    table = np.array([IGNORE if name is None else index[name] for name in names], np.uint8)
    return table[places.reshape(dense.values.shape)]


def labels_of(picture: Picture) -> set[str]:
    """The classes in an annotation; raises `UserError` for a label image that cannot be read."""
    if not picture.dense:
        return {region.label for region in picture.regions}
    dense = picture.dense()
    return {name for v in np.unique(dense.values) if (name := dense.names.get(int(v))) is not None}
