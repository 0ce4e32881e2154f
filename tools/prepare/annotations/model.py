"""Annotations as every reader returns them, whatever their format."""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from util.colours import Colour

Size = tuple[int, int]
"""Width and height."""


class Region(NamedTuple):
    """An annotated object."""

    label: str
    where: str
    """The key in the annotation file, for messages."""
    draw: Callable[[int, int], dict[str, Any]]
    """(height, width) -> its pixels as COCO's run lengths; raises `ValueError`."""


class Dense(NamedTuple):
    """A label image."""

    values: np.ndarray
    """`[H, W]`, integers."""
    names: dict[int, str | None]
    """The class of each value; None, and values without an entry: ignored."""


class Picture(NamedTuple):
    """The annotation of one image: its regions, or a label image."""

    file: Path
    names: tuple[str, ...]
    """Possible paths of the image, the likeliest first: with `/`, with or without suffix."""
    size: Size | None
    """Size in the annotation; None: not given."""
    regions: list[Region]
    dense: Callable[[], Dense] | None = None
    """Reads the label image; raises `UserError`."""
    complete: bool = True
    """True where an image without regions was annotated as empty; False: it may just be listed, or
    have objects that are not read."""
    names_agree: bool = False
    """True where all names must mean the same image."""


class Annotations(NamedTuple):
    """Content of annotation files."""

    format: str
    pictures: list[Picture]
    classes: list[str]
    """Declared classes, in the order of the files."""
    skipped: Counter[str]
    """Number of unread entries by kind."""
    colours: dict[str, Colour]
    """Colours of classes, where the format has them."""


def merged(parts: Iterable[Annotations]) -> Annotations:
    """Join the annotations of several files of one format."""
    parts = list(parts)
    return Annotations(
        parts[0].format,
        [picture for part in parts for picture in part.pictures],
        list(dict.fromkeys(name for part in parts for name in part.classes)),
        sum((part.skipped for part in parts), Counter[str]()),
        {name: colour for part in parts for name, colour in part.colours.items()},
    )
