"""Show the result of an inspection as a self-contained HTML page."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from dataset.mask_files import LabelLookup
from tools import html
from tools.check_data.inspect import CheckedSplit
from tools.check_data.problems import Problem, grouped
from tools.check_data.report import class_rows
from tools.check_data.thumbnails import highlight_figures, sample_figures
from util.colours import IGNORE_COLOUR, palette
from util.config.label_map import UNKNOWN
from util.config.schema import Config
from util.config.types import IGNORE
from util.plotting import as_svg, histogram

ROWS = 24
"""Sizes and mask values shown, the most frequent ones."""
ORDER = {True: "images by class, the rarest first", False: "from dark to bright"}
"""Order of samples, with and without labelled pixels."""
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
"""Head, and rows of cells as base.html.j2 has them."""


def page(
    report: dict[str, Any],
    splits: Sequence[CheckedSplit],
    found: Sequence[Problem],
    config: Config,
    limit: int,
) -> str:
    """Return the whole page: verdict, pictures, tables; at most `limit` problems of a kind.

    `report`: from `tools.check_data.report.numbers`.
    """
    records: dict[str, Any] = report["lists"]
    return html.render(
        "check_data/report.html.j2",
        generator="tools.check_data",
        title=f"{config.data.name}: data report",
        lists=records,
        problems=grouped(found),
        limit=limit,
        highlights=list(highlight_figures(splits, found, config)),
        samples=[
            (f"{item.name}: {ORDER[item.is_labelled]}", list(sample_figures(item, config)))
            for item in splits
        ],
        classes=_classes(records, config),
        images=_images(records),
        bands=_bands(records),
        histograms=_histograms(records),
        values=_values(splits, config),
    )


def _classes(records: dict[str, Any], config: Config) -> Table:
    """Tabulate share of the pixels, as a bar too, and number of images of each class and split."""
    head, *rows = class_rows(records)
    most = [max(column) for column in zip(*(row[1:] for row in rows), strict=True)]
    colours = [*palette(config.data), IGNORE_COLOUR]
    return head, [
        [{"text": row[0], "colour": colour}]
        + [
            {"text": f"{cell:.2%}", "bar": cell / (top or 1)} if isinstance(cell, float) else cell
            for cell, top in zip(row[1:], most, strict=True)
        ]
        for row, colour in zip(rows, colours, strict=True)
    ]


def _images(records: dict[str, Any]) -> Table:
    """Tabulate the number of images of each size, mode and so on, in each split."""
    rows: list[Any] = []
    for key, title in COUNTED.items():
        counts = [record[key] for record in records.values()]
        names = list(dict.fromkeys(chain(*counts)))
        cells = [[name, *(found.get(name) or "" for found in counts)] for name in names]
        rows += [title, *_limited([row for row in cells if any(row[1:])])]
    return ["", *records], rows


def _histograms(records: dict[str, Any]) -> list[bytes]:
    """Draw the distribution of each band's values over their range, a line for each split."""
    shares: dict[str, dict[str, list[float]]] = {}
    for split, record in records.items():
        for name, band in record["bands"].items():
            shares.setdefault(name, {})[split] = [100 * share for share in band["steps"]]
    return [as_svg(histogram(found, name)) for name, found in shares.items()]


def _bands(records: dict[str, Any]) -> Table:
    rows: list[Any] = []
    for split, record in records.items():
        rows.append(split)
        for name, band in record["bands"].items():
            ends = (f"{band[end]:.2%}" for end in ("lowest", "highest"))
            rows.append([name, *ends, band["constant"] or ""])
    return ["band", "lowest value", "highest value", "constant in images"], rows


def _values(splits: Sequence[CheckedSplit], config: Config) -> Table:
    """Tabulate mask values and colours that are not the index of their class, with their class."""
    labels, masks = LabelLookup(config.data), [item for item in splits if item.values]
    names = dict(enumerate(config.data.classes)) | {UNKNOWN: "no class", IGNORE: "ignored"}
    pixels = [item.values for item in masks]
    rows = [
        [f"{labels.name(code)} = {names[index]}"]
        + [f"{values.get(code, 0) / sum(values.values()):.2%}" for values in pixels]
        for code in dict.fromkeys(code for values in pixels for code in values)
        if (index := int(labels.class_of(np.array(code)))) != code or labels.in_colour
    ]
    return ["", *(item.name for item in masks)], _limited(rows)


def _limited(rows: list[Any]) -> list[Any]:
    return [*rows[:ROWS], *([[f"and {len(rows) - ROWS} more"]] if len(rows) > ROWS else [])]
