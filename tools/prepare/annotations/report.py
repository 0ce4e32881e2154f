"""Report on the annotations read and the masks written."""

from collections.abc import Sequence
from pathlib import Path

from tools.prepare.annotations.classes import ClassTable
from tools.prepare.annotations.draw import Totals
from tools.prepare.annotations.model import Annotations
from util.config.types import IGNORE
from util.errors import counted, first_of
from util.tables import text_table

SOME = 8
"""Names that a line shows."""
INDENT = 11 * " "


def report(
    annotations: Annotations,
    table: ClassTable,
    totals: Totals,
    unlabelled: Sequence[Path],
    listed: Sequence[str],
    lost: Sequence[str],
    folder: Path,
) -> str:
    """Return a table of classes with their counts, and lines on overlaps and skipped entries.

    Args:
        unlabelled: images that no annotation names.
        listed: images that annotations name without an object.
        lost: names in annotations that are of no image.
    """
    rest = "ignored (255)" if table.rest == IGNORE else f"class 0, {table.names[0]}"
    overlap = f"{totals.overlapping} pixels ({totals.overlapping / totals.pixels:.2%})"
    rows = [[name, str(totals.objects[name] or "-"), str(totals.images[name])]
            for name in table.names]  # fmt: skip
    count = totals.objects.total()
    lines = [
        ("annotated", f"{annotations.format}; images: {totals.masks}"
         + (f", objects: {count}" if count else "")),
        ("", text_table([["class", "objects", "images"], *rows], "<>>", INDENT).strip()),
        ("overlaps", f"{overlap} are covered by objects of several classes: the smaller object is "
         "on top" if count else ""),
        ("rest", f"pixels without object: {rest}" if count else ""),
        ("unused", _names(table.unused, "declared, without objects, no class")),
        ("skipped", "; ".join(f"{what}: {n}" for what, n in annotations.skipped.items() if n)),
        ("empty", f"objects that cover no pixel: {totals.invisible}" if totals.invisible else ""),
        ("no image", _names(lost, "annotated, but not in --images")),
        ("no objects", _names(listed, "without objects, unlabelled (or --empty background)")),
        ("unlabelled", _names(unlabelled, "without annotation")),
        ("written", f"{folder}: {counted(totals.masks, 'mask')}"),
    ]  # fmt: skip
    return "\n".join(f"{title:<10} {text}" for title, text in lines if text)


def _names(names: Sequence[object], what: str) -> str:
    """Return a number of names, their meaning, and the first of them; '' for none."""
    return f"{len(names)} {what}: {first_of([str(n) for n in names], SOME)}" if names else ""
