"""Masks of class indices from the annotations of images, and their classes."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dataset.image_files import size_mismatch_error
from tools.prepare.annotations.shapes import area, decoded
from tools.prepare.annotations.types import Annotations, ImageAnnotation, LabelImage, Region, Size
from tools.prepare.own.classes import MAX_CLASSES, NEAREST
from util.colours import BACKGROUND_COLOUR, IGNORE_COLOUR, Colour
from util.config.types import IGNORE
from util.errors import UserError

UNCOVERED = 254
"""Value of pixels without a region in a mask that is being drawn; class indices are below."""
BACKGROUND = "background"
NO_OBJECT = ("background", "_background_")
"""Names of classes for the pixels that no object covers."""
IGNORES = ("ignore", "_ignore_", "__ignore__")
"""Names of classes of ignored pixels."""


class ClassTable(NamedTuple):
    """Classes of the masks."""

    names: list[str]
    """In the order of the indices."""
    indices: dict[str, int]
    """Index of each name in annotations; 255: ignored."""
    rest: int
    """Index of pixels that no object covers."""
    unused: list[str]
    """Declared names without an object, which are not among the classes."""
    colours: list[Colour]
    """Empty, unless every class has a colour of its own."""

    def palette(self) -> np.ndarray:
        """Return the palette of the masks, `[256, 3]` uint8."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self.colours)] = self.colours
        table[IGNORE] = IGNORE_COLOUR
        return table


class MaskToDraw(NamedTuple):
    """A mask to draw, the image that it is for, and the image's annotation."""

    key: str
    image: Path
    annotation: ImageAnnotation
    size: Size


class Totals(NamedTuple):
    """Sums over masks."""

    pixels: int
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


def labels_of(annotation: ImageAnnotation) -> set[str]:
    """Return the classes in an annotation; raises `UserError` for an unreadable label image."""
    if not annotation.read_label_image:
        return {region.label for region in annotation.regions}
    label_image = annotation.read_label_image()
    return {
        name
        for v in np.unique(label_image.values)
        if (name := label_image.names.get(int(v))) is not None
    }


def class_table(annotations: Annotations, used: Iterable[set[str]], unannotated: str) -> ClassTable:
    """Number the classes that occur: declared ones in their order, then the others by name. For
    masks drawn from objects, background is class 0 if `unannotated` is "background".

    Raises `UserError` for more than 254 classes.
    """
    file, found = annotations.per_image[0].file, set().union(*used)
    if "" in {name.strip() for name in found}:
        raise UserError(f"{file}: an object without a class name")
    order = [*annotations.classes, *sorted(found - set(annotations.classes))]
    names = [name for name in order if name in found and name.lower() not in IGNORES]
    own = next((name for name in names if name.lower() in NO_OBJECT), None)
    drawn = any(annotation.regions for annotation in annotations.per_image)
    with_rest = drawn and unannotated == BACKGROUND
    if own or with_rest:
        names = [own or BACKGROUND, *(name for name in names if name != own)]
    if len(names) > MAX_CLASSES or NEAREST in names:
        raise UserError(
            f"{file}: {len(names)} classes; expected at most {MAX_CLASSES}, none of them named "
            f"{NEAREST}"
        )
    index = {name: IGNORE for name in found if name.lower() in IGNORES}
    index |= {name: number for number, name in enumerate(names)}
    colours = {(own or BACKGROUND): BACKGROUND_COLOUR, **annotations.colours}
    kept = [colours[name] for name in names if name in colours]
    distinct = bool(annotations.colours) and len(set(kept)) == len(kept) == len(names)
    unused = [name for name in annotations.classes if name not in found]
    return ClassTable(names, index, 0 if with_rest else IGNORE, unused, kept if distinct else [])


def draw(task: MaskToDraw, table: ClassTable) -> tuple[np.ndarray, Totals]:
    """Draw regions, crowds too, by decreasing area: smaller ones are on top.

    Returns the mask `[H, W]`, uint8, 255 = ignore, and its counts. Raises `UserError` for a region
    that cannot be drawn and a label image of another size.
    """
    annotation, (width, height) = task.annotation, task.size
    mask = np.full((height, width), UNCOVERED, np.uint8)
    if annotation.read_label_image:
        mask = _look_up(annotation.read_label_image(), table.indices)
        if mask.shape != (height, width):
            raise size_mismatch_error(task.image, annotation.file, task.size, mask.shape[::-1])
    overlapping = np.zeros(mask.shape, bool)
    regions = annotation.regions
    shapes = [_run_lengths(annotation, region, height, width) for region in regions]
    areas = np.array([area(shape) for shape in shapes], int)
    for i in np.argsort(-areas, kind="stable"):
        covered, label = decoded(shapes[i]), table.indices[regions[i].label]
        overlapping |= covered & (mask != UNCOVERED) & (mask != label)
        mask[covered] = label
    mask[mask == UNCOVERED] = table.rest
    shown = np.unique(mask)
    return mask, Totals(
        mask.size,
        int(overlapping.sum()),
        int((areas == 0).sum()),
        Counter(region.label for region in regions),
        Counter(name for number, name in enumerate(table.names) if number in shown),
    )


def _run_lengths(
    annotation: ImageAnnotation, region: Region, height: int, width: int
) -> dict[str, Any]:
    try:
        return region.draw(height, width)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{annotation.file}: {region.where}: {error}") from None


def _look_up(label_image: LabelImage, index: dict[str, int]) -> np.ndarray:
    values, places = np.unique(label_image.values, return_inverse=True)
    names = [label_image.names.get(int(value)) for value in values]
    table = np.array([IGNORE if name is None else index[name] for name in names], np.uint8)
    return table[places.reshape(label_image.values.shape)]
