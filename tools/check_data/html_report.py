"""What an inspection found, as one HTML page that needs nothing else."""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from typing import Any

import numpy as np

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
"""Figures of images, and what they are called."""
STYLE = """
summary { cursor: pointer }
.figures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%,
  23rem), 1fr)) } figure { display: block; margin: 0; max-width: none }
.views { display: flex; gap: .3rem; align-items: flex-start }
.zoom { flex: 1; min-width: 0; cursor: zoom-in } .zoom img { width: 100%; display: block }
.zoom input { position: absolute; opacity: 0 } .zoom input:focus-visible + span { outline: 3px
  solid #06c; display: block }
.zoom input:checked + span { position: fixed; inset: 0; z-index: 1; display: grid; overflow: auto;
  background: #000d; cursor: zoom-out; place-items: safe center }
.zoom input:checked + span img { width: auto; max-width: none; min-width: 60vmin;
  image-rendering: pixelated }
.key { display: inline-block; margin-right: .8rem } .table { overflow-x: auto }
td.n div { height: .25rem; margin-left: auto; background: #5b84b1; print-color-adjust: exact }
@media (max-width: 30rem) { .views { flex-direction: column } }
@media print { details::details-content { display: block; content-visibility: visible }
  .figures { grid-template-columns: 1fr 1fr } }
"""


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
    sources = (
        f"<p><b>{kind}</b> {record['images']} images, {escape(record['source'])}</p>"
        for kind, record in records.items()
    )
    strange = suspect_figures(lists, config)
    body = [
        *sources,
        *_problems(found, limit),
        "<p>A click on a picture shows it at full size, another one closes it.</p>",
        *(["<h2>Worth a look</h2>", strange] if strange else []),
        *(f"<h2>{_heading(seen)}</h2>{sample_figures(seen, config)}" for seen in lists),
        *_classes(records, config),
        *_images(records),
        *_bands(records),
        *_values(lists, config),
    ]
    return html.page(f"{config.data.name}: data report", body, "tools.check_data", STYLE)


def _problems(found: Sequence[Problem], limit: int) -> list[str]:
    if not found:
        return ['<p class="well">No problems found.</p>']
    parts = []
    for kind, group in groupby(found, key=lambda problem: problem.kind):
        some = list(group)
        severity = "error" if kind in ERRORS else "warning"
        items = "".join(f"<li>{escape(problem.message)}</li>" for problem in some[:limit])
        more = f"<li>... and {len(some) - limit} more</li>" if len(some) > limit else ""
        parts.append(
            f'<details class="{severity}"><summary><b>{severity.capitalize()}:</b> '
            f"{(ERRORS | WARNINGS)[kind]} ({len(some)})</summary><ul>{items}{more}</ul></details>"
        )
    return parts


def _heading(seen: SeenList) -> str:
    order = "the rarest classes first" if seen.pixels.any() else "from dark to bright"
    return f"{seen.kind}: {order}"


def _classes(records: dict[str, Any], config: Config) -> list[str]:
    """Share of the pixels and number of images of each class, in each list."""
    labelled = {kind: record for kind, record in records.items() if "classes" in record}
    columns = [[*record["classes"].values(), record["ignored"]] for record in labelled.values()]
    names = [*map(escape, config.data.classes), "ignored"]
    rows = []
    for index, (name, colour) in enumerate(
        zip(names, [*palette(config.data), IGNORE_COLOUR], strict=True)
    ):
        cells = [html.swatch(colour) + name]
        for column in columns:
            most = max(entry["share"] for entry in column) or 1
            entry = column[index]
            cells += [_with_bar(f"{entry['share']:.2%}", entry["share"] / most)]
            cells += [str(entry["images"])]
        rows.append(cells)
    head = ["class", *(text for kind in labelled for text in (kind, "images"))]
    crops = [
        f"<p>Of {crops['drawn']} random training crops (padding included) "
        f"{crops['mostly_ignored']} are more than "
        f"half ignored, {crops['without_label']} wholly.</p>"
        for record in records.values()
        if (crops := record.get("crops"))
    ]
    return ["<h2>Classes, by their share of the pixels</h2>", _table(head, rows), *crops]


def _images(records: dict[str, Any]) -> list[str]:
    """Sizes, modes and the like: number of images in each list."""
    rows: list[Sequence[str]] = []
    for key, title in COUNTED.items():
        counts = {kind: record[key] for kind, record in records.items()}
        names = dict.fromkeys(name for found in counts.values() for name in found)
        rows += [title]
        rows += _limited(
            [
                [escape(str(name)), *(str(found.get(name) or "") for found in counts.values())]
                for name in names
            ]
        )
    return ["<h2>Images</h2>", _table(["", *records], rows)]


def _bands(records: dict[str, Any]) -> list[str]:
    """How the values of each band spread over its range, and where they end, in each list."""
    head = ["band", "lowest value", *(f"{i + 1}/{STEPS}" for i in range(STEPS)), "highest value",
            "images where it is constant"]  # fmt: skip
    rows: list[Sequence[str]] = []
    for kind, record in records.items():
        rows += [kind]
        for name, band in record["bands"].items():
            most = max(band["steps"])
            steps = (_with_bar(f"{share:.1%}", share / most) for share in band["steps"])
            ends = (f"{band[end]:.2%}" for end in ("lowest", "highest"))
            rows += [[name, next(ends), *steps, next(ends), str(band["constant"] or "")]]
    return ["<h2>Bands, by the share of their pixels in each part of the range</h2>",
            _table(head, rows)]  # fmt: skip


def _values(lists: Sequence[SeenList], config: Config) -> list[str]:
    """What mask values or colours mean, where they are not just the index of their class."""
    labels, masks = Labels(config.data), [seen for seen in lists if seen.values]
    names = dict(enumerate(config.data.classes)) | {UNKNOWN: "no class", IGNORE: "ignored"}
    totals = [sum(seen.values.values()) for seen in masks]
    rows = [
        [
            f"{labels.name(code)} = {escape(names[index])}",
            *(f"{s.values.get(code, 0) / n:.2%}" for s, n in zip(masks, totals, strict=True)),
        ]
        for code in dict.fromkeys(code for seen in masks for code in seen.values)
        if (index := int(labels.class_of(np.array(code)))) != code or labels.in_colour
    ]
    head = ["", *(seen.kind for seen in masks)]
    title = "<h2>Mask values that are not the index of their class</h2>"
    return [title, _table(head, _limited(rows))] if rows else []


def _limited(rows: list[list[str]]) -> list[list[str]]:
    more = [[f"and {len(rows) - ROWS} more"]] if len(rows) > ROWS else []
    return [*rows[:ROWS], *more]


def _with_bar(text: str, share: float) -> str:
    return f'{text}<div style="width: {100 * share:.0f}%"></div>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """All but the first cells of rows are numbers; a wide one scrolls by itself."""
    return f'<div class="table">{html.table(head, rows, {*range(1, len(head))})}</div>'
