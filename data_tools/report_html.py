"""What an inspection found, as one HTML page that needs nothing else."""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from typing import Any

import numpy as np
from PIL import Image

from data_tools.inspect import Seen, SeenList
from data_tools.problems import ERRORS, WARNINGS, Problem
from dataset.files import Reader
from util import html
from util.config import Config
from util.errors import UserError
from util.palette import IGNORE_COLOUR, palette
from util.picture import overlay, side_by_side

THUMBNAIL = 240  # pixels, the longer side
SHOWN = {"labeled": 12, "unlabeled": 6, "val": 6, "test": 6}
BARS = 16


def page(
    report: dict[str, Any],
    lists: Sequence[SeenList],
    found: Sequence[Problem],
    config: Config,
    limit: int,
) -> str:
    """The whole page; `report` as `data_tools.report.numbers` returns it."""
    title = f"{config.data.name}: data report"
    body = [
        *_problems(found, limit),
        *(_section(seen, report["lists"][seen.kind], config) for seen in lists),
    ]
    return html.page(title, body, "tools.check_data")


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
            f'<div class="{severity}"><b>{severity.capitalize()}: '
            f"{(ERRORS | WARNINGS)[kind]} ({len(some)})</b><ul>{items}{more}</ul></div>"
        )
    return parts


def _section(seen: SeenList, record: dict[str, Any], config: Config) -> str:
    """All of one list: figures, then pictures."""
    crops = record.get("crops")
    note = (
        f"<p>Of {crops['drawn']} random training crops {crops['mostly_ignored']} are more than "
        f"half ignored, {crops['without_label']} wholly.</p>"
        if crops
        else ""
    )
    return (
        f"<h2>{seen.kind}: {record['images']} images</h2><p>{escape(record['source'])}</p>"
        f'<div class="figures">{_classes(record, config)}'
        f"{_distribution('Image sizes', record['sizes'])}"
        f"{_distribution('Mask values', record.get('values'))}</div>{note}{_samples(seen, config)}"
    )


def _classes(record: dict[str, Any], config: Config) -> str:
    """Share of the pixels and number of images of each class."""
    if "classes" not in record:
        return ""
    entries = [*record["classes"].items(), ("ignored", record["ignored"])]
    most = max(entry["share"] for _, entry in entries) or 1
    colours = [*palette(config.data), IGNORE_COLOUR]
    rows = [
        (
            html.swatch(colour) + escape(name),
            f"{entry['share']:.2%}",
            html.bar(entry["share"] / most),
            str(entry["images"]),
        )
        for (name, entry), colour in zip(entries, colours, strict=True)
    ]
    return html.table(("class", "pixels", "", "images"), rows, numeric={1, 3})


def _distribution(title: str, counts: dict[str, int] | None) -> str:
    """The most frequent of what was counted."""
    if not counts:
        return ""
    most, total = max(counts.values()), sum(counts.values())
    rows = [
        (escape(name), f"{count / total:.2%}", html.bar(count / most))
        for name, count in list(counts.items())[:BARS]
    ]
    if len(counts) > BARS:
        rows.append((f"and {len(counts) - BARS} more", "", ""))
    return html.table((title, "", ""), rows, numeric={1})


def _samples(found: SeenList, config: Config) -> str:
    """Some samples without faults: image, and image with its mask over it."""
    good = [seen for seen in found.seen if not seen.faults]
    count = min(SHOWN[found.kind], len(good))
    some = [good[i * len(good) // count] for i in range(count)]
    reader = Reader(config.data)
    figures = "".join(_figure(seen, reader, config) for seen in some)
    return f"<div>{figures}</div>"


def _figure(seen: Seen, reader: Reader, config: Config) -> str:
    sample = seen.sample
    try:
        image = reader.image(sample)
        size = _fit(image.size)
        row = [image.resize(size, Image.Resampling.LANCZOS)]
        if sample.mask is not None:
            mask = reader.mask(sample).resize(size, Image.Resampling.NEAREST)
            row.append(overlay(row[0], np.array(mask), config.data))
    except UserError:  # changed since it was inspected
        return ""
    classes = [
        name for name, pixels in zip(config.data.classes, _pixels(seen), strict=False) if pixels
    ]
    caption = f"{sample.image}" + (f": {', '.join(classes)}" if classes else "")
    return html.picture(side_by_side([row]), caption)


def _pixels(seen: Seen) -> Iterable[int]:
    return [] if seen.pixels is None else seen.pixels.tolist()


def _fit(size: tuple[int, int]) -> tuple[int, int]:
    scale = THUMBNAIL / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
