"""Classes of the masks that are drawn from annotations, and their indices."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from tools.prepare.annotations.model import Annotations, Colour
from tools.prepare.own.classes import MAX_CLASSES, NEAREST
from util.colours import BACKGROUND_COLOUR, IGNORE_COLOUR
from util.config.types import IGNORE
from util.errors import UserError

UNCOVERED = 254
"""Value of pixels without a region in a mask that is being drawn; class indices are below."""
BACKGROUND = "background"
BACKGROUNDS = ("background", "_background_")
"""Names of classes for the pixels that no object covers."""
IGNORES = ("ignore", "_ignore_", "__ignore__")
"""Names of classes of ignored pixels."""


class ClassTable(NamedTuple):
    """Names in the order of the indices."""

    names: list[str]
    indices: dict[str, int]
    """Index of each name in annotations; 255: ignored."""
    rest: int
    """Index of pixels that no object covers."""
    unused: list[str]
    """Declared names of no object, which are not among the classes."""
    colours: list[Colour]
    """Empty, unless every class has a colour of its own."""

    def palette(self) -> np.ndarray:
        """`[256, 3]`, uint8."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self.colours)] = self.colours
        table[IGNORE] = IGNORE_COLOUR
        return table


def class_table(annotations: Annotations, used: Iterable[set[str]], unannotated: str) -> ClassTable:
    """Number the classes that occur: declared ones in their order, then the others by name. Where
    masks are drawn from objects and `unannotated` is "background", background is class 0.

    Raises `UserError` for more than 254 classes.
    """
    found = set().union(*used)
    if "" in {name.strip() for name in found}:
        raise UserError(f"{annotations.pictures[0].file}: an object without a class name")
    order = [*annotations.classes, *sorted(found - set(annotations.classes))]
    names = [name for name in order if name in found and name.lower() not in IGNORES]
    own = next((name for name in names if name.lower() in BACKGROUNDS), None)
    drawn = any(picture.regions for picture in annotations.pictures)
    with_rest = drawn and unannotated == BACKGROUND
    if own or with_rest:
        names = [own or BACKGROUND, *(name for name in names if name != own)]
    if len(names) >= min(MAX_CLASSES, UNCOVERED) or NEAREST in names:
        raise UserError(
            f"{annotations.pictures[0].file}: {len(names)} classes; expected fewer than "
            f"{MAX_CLASSES}, none of them named {NEAREST}"
        )
    index = {name: IGNORE for name in found if name.lower() in IGNORES}
    index |= {name: number for number, name in enumerate(names)}
    colours = {(own or BACKGROUND): BACKGROUND_COLOUR} | annotations.colours
    kept = [colours[name] for name in names if name in colours]
    distinct = bool(annotations.colours) and len(set(kept)) == len(kept) == len(names)
    return ClassTable(
        names,
        index,
        0 if with_rest else IGNORE,
        [name for name in annotations.classes if name not in found],
        kept if distinct else [],
    )
