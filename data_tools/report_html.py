"""What an inspection found, as one HTML page that needs nothing else."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from typing import Any

import numpy as np
from PIL import Image

from data_tools.inspect import Seen, SeenList
from data_tools.problems import ERRORS, WARNINGS, Problem
from dataset.files import Reader
from util.config import Config
from util.errors import UserError
from util.picture import IGNORE_COLOUR, colour_mask, overlay, palette, side_by_side

THUMBNAIL = 240  # pixels, the longer side
SHOWN = {"labeled": 12, "unlabeled": 6, "val": 6, "test": 6}
BARS = 16
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fff; margin: 2rem auto;
  max-width: 1100px; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
.figures { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; align-items: flex-start }
table { border-collapse: collapse } td, th { padding: .15rem .7rem .15rem 0; text-align: left }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
.bar { width: 8rem; background: #eee } .bar div { background: #5b84b1; height: .8rem }
.swatch { display: inline-block; width: .9rem; height: .9rem; margin-right: .5rem;
  border: 1px solid #0004; vertical-align: -.1rem }
.error, .warning { border-left: .3rem solid #c0392b; padding: .1rem .8rem; margin: .8rem 0;
  background: #fbeeec } .warning { border-color: #d9a400; background: #fdf7e3 }
.well { border-left: .3rem solid #2e8b57; padding: .4rem .8rem; background: #eaf5ee }
.error ul, .warning ul { margin: .3rem 0; padding-left: 1.2rem } li { overflow-wrap: anywhere }
figure { display: inline-block; margin: .4rem; vertical-align: top; max-width: 488px }
figcaption { font-size: .8rem; color: #555; overflow-wrap: anywhere } img { max-width: 100% }
"""


def page(
    report: dict[str, Any],
    lists: Sequence[SeenList],
    found: Sequence[Problem],
    config: Config,
    limit: int,
) -> str:
    """The whole page; `report` as `data_tools.report.numbers` returns it."""
    title = escape(f"{config.data.name}: data report")
    body = [
        f"<h1>{title}</h1>",
        *_problems(found, limit),
        *(_section(seen, report["lists"][seen.kind], config) for seen in lists),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="generator" content="tools.check_data"><title>{title}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


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
            f'<span class="swatch" style="background: rgb{colour}"></span>{escape(name)}',
            f"{entry['share']:.2%}",
            _bar(entry["share"] / most),
            str(entry["images"]),
        )
        for (name, entry), colour in zip(entries, colours, strict=True)
    ]
    return _table(("class", "pixels", "", "images"), rows, numeric={1, 3})


def _distribution(title: str, counts: dict[str, int] | None) -> str:
    """The most frequent of what was counted."""
    if not counts:
        return ""
    most, total = max(counts.values()), sum(counts.values())
    rows = [
        (escape(name), f"{count / total:.2%}", _bar(count / most))
        for name, count in list(counts.items())[:BARS]
    ]
    if len(counts) > BARS:
        rows.append((f"and {len(counts) - BARS} more", "", ""))
    return _table((title, "", ""), rows, numeric={1})


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
            row.append(overlay(row[0], colour_mask(np.array(mask), palette(config.data))))
    except UserError:  # changed since it was inspected
        return ""
    classes = [
        name for name, pixels in zip(config.data.classes, _pixels(seen), strict=False) if pixels
    ]
    caption = escape(f"{sample.image}" + (f": {', '.join(classes)}" if classes else ""))
    return (
        f'<figure><img alt="" src="data:image/jpeg;base64,{_jpeg(side_by_side([row]))}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _pixels(seen: Seen) -> Iterable[int]:
    return [] if seen.pixels is None else seen.pixels.tolist()


def _fit(size: tuple[int, int]) -> tuple[int, int]:
    scale = THUMBNAIL / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _jpeg(picture: Image.Image) -> str:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=85)
    return base64.b64encode(data.getvalue()).decode()


def _bar(share: float) -> str:
    return f'<div class="bar"><div style="width: {100 * share:.1f}%"></div></div>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numeric: set[int]) -> str:
    """Cells are HTML already."""

    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(
            f'<{tag} class="n">{cell}</{tag}>' if i in numeric else f"<{tag}>{cell}</{tag}>"
            for i, cell in enumerate(cells)
        ) + "</tr>"  # fmt: skip

    return f"<table>{row(head, 'th')}{''.join(row(r, 'td') for r in rows)}</table>"
