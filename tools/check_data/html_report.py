"""Show the result of an inspection as a self-contained HTML page."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from dataset.mask_files import Labels
from tools import html
from tools.check_data.band_stats import STEPS
from tools.check_data.inspect import SeenList
from tools.check_data.problems import ERRORS, WARNINGS, Problem
from tools.check_data.thumbnails import sample_figures, suspect_figures
from util.colours import IGNORE_COLOUR, palette
from util.config.label_map import UNKNOWN
from util.config.schema import IGNORE, Config

ROWS = 24
"""Sizes and mask values shown, the most frequent ones."""
COUNTED = {
    "sizes": "Size",
    "shapes": "Shape",
    "modes": "Mode",
    "bits": "Bits a channel",
    "exif": "EXIF orientation",
    "brightness": "Mean grey value",
}
"""Properties of images, with their titles."""
Table = tuple[list[str], list[Any]]
"""Head, and rows of cells as report.html.j2 has them."""


def page(
    report: dict[str, Any],
    lists: Sequence[SeenList],
    found: Sequence[Problem],
    config: Config,
    limit: int,
) -> str:
    """Return the whole page: verdict, pictures, tables.

    `report`: from `tools.check_data.report.numbers`.

    `limit`: problems shown of a kind.
    """
    records: dict[str, Any] = report["lists"]
    return html.render(
        "check_data/report.html.j2",
        generator="tools.check_data",
        title=f"{config.data.name}: data report",
        lists=records,
        problems=_problems(found),
        limit=limit,
        suspects=suspect_figures(lists, config),
        samples=[(_heading(seen), sample_figures(seen, config)) for seen in lists],
        classes=_classes(records, config),
        images=_images(records),
        bands=_bands(records),
        values=_values(lists, config),
    )


def _problems(found: Sequence[Problem]) -> list[tuple[str, str, list[str]]]:
    """Severity, title and messages of each kind."""
    return [
        (
            "error" if kind in ERRORS else "warning",
            (ERRORS | WARNINGS)[kind],
            [problem.message for problem in problems],
        )
        for kind, problems in groupby(found, key=lambda problem: problem.kind)
    ]


def _heading(seen: SeenList) -> str:
    order = "the rarest classes first" if seen.pixels.any() else "from dark to bright"
    return f"{seen.kind}: {order}"


def _classes(records: dict[str, Any], config: Config) -> Table:
    """Share of the pixels and number of images of each class, in each list."""
    labelled = {kind: record for kind, record in records.items() if "classes" in record}
    columns = [[*record["classes"].values(), record["ignored"]] for record in labelled.values()]
    names, colours = [*config.data.classes, "ignored"], [*palette(config.data), IGNORE_COLOUR]
    rows = []
    for name, colour, *entries in zip(names, colours, *columns, strict=True):
        cells: list[Any] = [{"text": name, "colour": colour}]
        for column, entry in zip(columns, entries, strict=True):
            most = max(other["share"] for other in column) or 1
            cells += [_bar(f"{entry['share']:.2%}", entry["share"] / most), entry["images"]]
        rows.append(cells)
    return ["class", *(text for kind in labelled for text in (kind, "images"))], rows


def _images(records: dict[str, Any]) -> Table:
    """Number of images of each size, mode and so on, in each list."""
    rows: list[Any] = []
    for key, title in COUNTED.items():
        counts = [record[key] for record in records.values()]
        names = dict.fromkeys(name for found in counts for name in found)
        rows.append(title)
        rows += _limited([[name, *(found.get(name) or "" for found in counts)] for name in names])
    return ["", *records], rows


def _bands(records: dict[str, Any]) -> Table:
    """Distribution of each band's values over their range, and shares of both ends."""
    head = ["band", "lowest value", *(f"{i + 1}/{STEPS}" for i in range(STEPS)), "highest value",
            "images where it is constant"]  # fmt: skip
    rows: list[Any] = []
    for kind, record in records.items():
        rows.append(kind)
        for name, band in record["bands"].items():
            most = max(band["steps"])
            steps = (_bar(f"{share:.1%}", share / most) for share in band["steps"])
            low, high = (f"{band[end]:.2%}" for end in ("lowest", "highest"))
            rows.append([name, low, *steps, high, band["constant"] or ""])
    return head, rows


def _values(lists: Sequence[SeenList], config: Config) -> Table:
    """Meaning of mask values and colours that are not just the index of their class."""
    labels, masks = Labels(config.data), [seen for seen in lists if seen.values]
    names = dict(enumerate(config.data.classes)) | {UNKNOWN: "no class", IGNORE: "ignored"}
    totals = [sum(seen.values.values()) for seen in masks]
    rows = [
        [
            f"{labels.name(code)} = {names[index]}",
            *(f"{s.values.get(code, 0) / n:.2%}" for s, n in zip(masks, totals, strict=True)),
        ]
        for code in dict.fromkeys(code for seen in masks for code in seen.values)
        if (index := int(labels.classes[code])) != code or labels.in_colour
    ]
    return ["", *(seen.kind for seen in masks)], _limited(rows)


def _limited(rows: list[Any]) -> list[Any]:
    more = [[f"and {len(rows) - ROWS} more"]] if len(rows) > ROWS else []
    return [*rows[:ROWS], *more]


def _bar(text: str, share: float) -> dict[str, Any]:
    return {"text": text, "bar": share}
