"""Annotations as every reader returns them, whatever their format."""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Colour = tuple[int, int, int]
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
    """What the image may be called, the likeliest first: paths with `/`, with or without suffix."""
    size: Size | None
    """As the annotation says; None: it does not say."""
    regions: list[Region]
    dense: Callable[[], Dense] | None = None
    """Reads the label image; raises `UserError`."""
    complete: bool = True
    """Whether an image without regions was annotated as empty; False: it may just be listed, or
    have objects that are not read."""


class Annotations(NamedTuple):
    """What was read."""

    format: str
    pictures: list[Picture]
    classes: list[str]
    """Those that the files declare, in their order."""
    skipped: Counter[str]
    """What is not read, and how often it occurs."""
    colours: dict[str, Colour]
    """Of classes, where the format has them."""


def merged(parts: Iterable[Annotations]) -> Annotations:
    """The annotations of several files of one format."""
    parts = list(parts)
    return Annotations(
        parts[0].format,
        [picture for part in parts for picture in part.pictures],
        list(dict.fromkeys(name for part in parts for name in part.classes)),
        sum((part.skipped for part in parts), Counter[str]()),
        {name: colour for part in parts for name, colour in part.colours.items()},
    )
