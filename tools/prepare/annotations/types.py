"""Annotations as every reader returns them, whatever their format."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from util.colours import Colour
from util.config.types import IGNORE

Size = tuple[int, int]
"""Width and height."""
Draw = Callable[[int, int], dict[str, Any]]
"""(height, width) -> the pixels of an object as COCO's run lengths; raises `ValueError`."""


class Region(NamedTuple):
    """An annotated object."""

    label: str
    where: str
    """The key in the annotation file, for messages."""
    draw: Draw


def region(label: str, where: str, draw: Draw | str) -> Region | str:
    """Return an object; only its kind, `draw`, if it is not read."""
    return draw if isinstance(draw, str) else Region(label, where, draw)


class LabelImage(NamedTuple):
    """A label image."""

    values: np.ndarray
    """`[H, W]`, integers."""
    names: Mapping[int, str | None]
    """The class of each value; None, and values without an entry: ignored."""


def numbered_classes(values: np.ndarray) -> dict[int, str | None]:
    """Return a class for each value of a label image without names; 255 is ignored."""
    return {int(v): f"class_{v}" for v in np.unique(values)} | {IGNORE: None}


class ImageAnnotation(NamedTuple):
    """The annotation of one image: its objects, or a label image."""

    file: Path
    names: tuple[str, ...]
    """Possible paths of the image, the likeliest first: with `/`, with or without suffix."""
    size: Size | None = None
    """Size in the annotation; None: not given."""
    objects: Sequence[Region | str] = ()
    """Regions, and the kinds of objects that are not read, such as "boxes"."""
    read_label_image: Callable[[], LabelImage] | None = None
    """Reads the label image; raises `UserError`."""
    may_be_unannotated: bool = False
    """True where an image without objects may not have been annotated yet."""
    names_agree: bool = False
    """True where all names must mean the same image."""

    @property
    def regions(self) -> list[Region]:
        return [one for one in self.objects if isinstance(one, Region)]

    @property
    def skipped(self) -> list[str]:
        return [one for one in self.objects if isinstance(one, str)]

    @property
    def is_annotated(self) -> bool:
        """False for an image without anything to draw, unless it was annotated as empty."""
        return bool(self.regions or self.read_label_image) or not (
            self.may_be_unannotated or self.skipped
        )


def label_image_annotations(
    files: Iterable[Path], root: Path, read: Callable[[Path], LabelImage]
) -> list[ImageAnnotation]:
    """Return the annotations in label images, which are named as their images."""
    names = ((file, file.relative_to(root).with_suffix("").as_posix()) for file in files)
    return [
        ImageAnnotation(file, (name,), read_label_image=partial(read, file)) for file, name in names
    ]


class Annotations(NamedTuple):
    """Content of annotation files."""

    format: str
    per_image: list[ImageAnnotation]
    classes: Sequence[str] = ()
    """Declared classes, in the order of the files."""
    colours: Mapping[str, Colour] = {}
    """Colours of classes, where the format has them."""
    unread: Counter[str] = Counter()
    """Number of unread entries by kind, besides those of images."""

    def skipped(self) -> Counter[str]:
        """Return the number of everything that is not read, by kind."""
        return self.unread + Counter(kind for p in self.per_image for kind in p.skipped)


def merged(parts: Iterable[Annotations]) -> Annotations:
    """Join the annotations of several files of one format."""
    parts = list(parts)
    return Annotations(
        parts[0].format,
        [annotation for part in parts for annotation in part.per_image],
        list(dict.fromkeys(name for part in parts for name in part.classes)),
        {name: colour for part in parts for name, colour in part.colours.items()},
        sum((part.unread for part in parts), Counter[str]()),
    )
