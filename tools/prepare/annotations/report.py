"""What was read from annotations and written as masks, as text."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tools.prepare.annotations.classes import ClassTable
from tools.prepare.annotations.model import Annotations
from util.config.types import IGNORE
from util.errors import first_of

SOME = 8
"""Names that a line shows."""


class Totals(NamedTuple):
    """Sums over masks."""

    masks: int
    pixels: int
    ignored: int
    overlapping: int
    invisible: int
    objects: Counter[str]
    """Objects by class."""
    images: Counter[str]
    """Masks that show a class."""


def report(
    annotations: Annotations,
    table: ClassTable,
    totals: Totals,
    unlabelled: Sequence[Path],
    listed: Sequence[str],
    lost: Sequence[str],
    folder: Path,
) -> str:
    """Classes with their counts, overlaps, and what was left out.

    Args:
        unlabelled: images that no annotation names.
        listed: images that annotations name without an object.
        lost: names in annotations that are of no image.
    """
    objects = f", objects: {totals.objects.total()}" if totals.objects else ""
    width = max(map(len, ["class", *table.names]))
    notes = [
        ("unused", f"declared, without objects, no class: {first_of(table.unused, SOME)}"
         if table.unused else ""),
        ("skipped", "; ".join(f"{what}: {n}" for what, n in annotations.skipped.items() if n)),
        ("empty", f"objects that cover no pixel: {totals.invisible}" if totals.invisible else ""),
        ("no image", _names(lost, "annotated, but not in --images")),
        ("no objects", _names(listed, "without objects, unlabelled (or --empty background)")),
        ("unlabelled", _names(unlabelled, "without annotation")),
    ]  # fmt: skip
    rest = "ignored (255)" if table.rest == IGNORE else f"class 0, {table.names[0]}"
    drawn = [
        f"overlaps   {totals.overlapping} pixels ({totals.overlapping / totals.pixels:.2%}) are "
        "covered by objects of several classes: the smaller object is on top",
        f"rest       pixels without object: {rest}",
    ]
    return "\n".join([
        f"annotated  {annotations.format}; images: {totals.masks}{objects}",
        f"           {'class':<{width}}  objects  images",
        *(f"           {name:<{width}} {_count(totals, name):>8} {totals.images[name]:>7}"
          for name in table.names),
        *(drawn if totals.objects else []),
        *(f"{title:<10} {text}" for title, text in notes if text),
        f"written    {folder}: {totals.masks} mask{'s' * (totals.masks > 1)}",
    ])  # fmt: skip


def _count(totals: Totals, name: str) -> str:
    return str(totals.objects[name]) if totals.objects[name] else "-"


def _names(names: Sequence[object], what: str) -> str:
    """How many, what they are, and the first of them."""
    return f"{len(names)} {what}: {first_of([str(n) for n in names], SOME)}" if names else ""
