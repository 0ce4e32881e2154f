"""What an inspection found: as a table for the terminal, as plain numbers for JSON."""

from collections.abc import Iterable, Sequence
from itertools import chain, groupby
from typing import Any

from dataset.mask_files import LabelLookup
from tools.check_data.band_stats import BandFacts, band_names
from tools.check_data.inspect import CROPS, SeenList
from tools.check_data.problems import ERRORS, MOSTLY, WARNINGS, Problem
from util.config.data import Data
from util.config.schema import Config
from util.config.types import IGNORE
from util.tables import text_table

VALUES_SHOWN = 24
FACTS = {"modes": "mode", "bits": "bits", "exif": "exif", "shapes": "shape"}
"""Keys of a list's figures, and what they count of `ImageFacts`."""


def numbers(lists: Sequence[SeenList], found: Sequence[Problem], config: Config) -> dict[str, Any]:
    """All figures and problems, for JSON; shares are of all pixels of a list's masks."""
    return {
        "report": "tools.check_data",
        "dataset": config.data.name,
        "ok": not errors(found),
        "lists": {seen.kind: list_numbers(seen, config) for seen in lists},
        "problems": [
            {
                "kind": problem.kind,
                "severity": "error" if problem.kind in ERRORS else "warning",
                **{key: value for key, value in problem._asdict().items() if key != "kind"},
            }
            for problem in found
        ],
    }


def list_numbers(found: SeenList, config: Config) -> dict[str, Any]:
    """One list's figures."""
    record: dict[str, Any] = {
        "source": found.listed.name,
        "images": len(found.seen),
        "sizes": {f"{w}x{h}": count for (w, h), count in found.sizes.items()},
        **{key: found.facts(name) for key, name in FACTS.items()},
        "brightness": found.brightness,
        "bands": band_numbers(found.bands, config.data),
    }
    if found.kind == "unlabeled":
        return record
    pixels, masks = found.pixels, found.masks_with

    def figures(index: int) -> dict[str, Any]:
        share = int(pixels[index]) / max(1, int(pixels.sum()))
        return {"pixels": int(pixels[index]), "share": share, "images": int(masks[index])}

    labels = LabelLookup(config.data)
    record |= {
        "classes": {name: figures(index) for index, name in enumerate(config.data.classes)},
        "ignored": figures(IGNORE),
        "values": {labels.name(code): count for code, count in found.values.items()},
    }
    if len(crops := found.crops):
        record["crops"] = {
            "drawn": len(crops),
            "mostly_ignored": int((crops > MOSTLY).sum()),
            "without_label": int((crops == 1).sum()),
        }
    return record


def band_numbers(found: BandFacts | None, data: Data) -> dict[str, Any]:
    """Shares of the pixels of each band, by value, and the number of images that it says nothing
    in."""
    if found is None:
        return {}
    pixels = found.steps.sum(1, keepdims=True)
    steps, ends = (found.steps / pixels).tolist(), (found.ends / pixels).tolist()
    return {
        name: {
            "steps": steps[band],
            "lowest": ends[band][0],
            "highest": ends[band][1],
            "constant": int(found.constant[band]),
        }
        for band, name in enumerate(band_names(data))
    }


def errors(found: Iterable[Problem]) -> list[Problem]:
    return [problem for problem in found if problem.kind in ERRORS]


def text(report: dict[str, Any], found: Sequence[Problem], limit: int) -> str:
    """The terminal's report; at most `limit` problems of a kind."""
    lists: dict[str, Any] = report["lists"]
    lines = [
        f"{kind:<10} {record['images']} images, {record['source']}, {_sizes(record['sizes'])}"
        for kind, record in lists.items()
    ]
    head, *rows = class_rows(lists)
    cells = [[f"{c:.2%}" if isinstance(c, float) else c for c in row] for row in rows]
    classes = text_table([head, *cells], "<>")
    return "\n".join([*lines, "", classes, "", *_details(lists), *_problems(found, limit)])


def _sizes(sizes: dict[str, int], limit: int = 3) -> str:
    shown = [f"{size} ({count})" for size, count in list(sizes.items())[:limit]]
    more = [f"{len(sizes) - limit} other sizes"] if len(sizes) > limit else []
    return ", ".join([*shown, *more])


def class_rows(lists: dict[str, Any]) -> list[list[Any]]:
    """Return a head, and for each class, and what is ignored, its share of the pixels and number
    of images in each list with masks."""
    records = {kind: record for kind, record in lists.items() if "classes" in record}
    columns = [record["classes"] | {None: record["ignored"]} for record in records.values()]
    rows = [
        [name or "ignored", *chain(*((c[name]["share"], c[name]["images"]) for c in columns))]
        for name in columns[0]
    ]
    return [["class", *chain(*((kind, "images") for kind in records))], *rows]


def _details(lists: dict[str, Any]) -> list[str]:
    """Values of the masks, bands that say nothing, and what random crops hold."""
    lines = []
    for kind, record in lists.items():
        if values := record.get("values"):
            some = "  ".join(list(values)[:VALUES_SHOWN])
            more = f"  and {len(values) - VALUES_SHOWN} more" if len(values) > VALUES_SHOWN else ""
            lines.append(f"{kind}: mask values by frequency  {some}{more}")
        lines += [
            f"{kind}: {name} has one value everywhere in {band['constant']} images"
            for name, band in record["bands"].items()
            if band["constant"]
        ]
        if crops := record.get("crops"):
            lines.append(
                f"{kind}: of {crops['drawn']} random crops ({CROPS} an image, padding included) "
                f"{crops['mostly_ignored']} are more than half ignored, {crops['without_label']} "
                "entirely"
            )
    return [*lines, ""] if lines else []


def grouped(found: Iterable[Problem]) -> list[tuple[str, str, list[str]]]:
    """Return severity, title and messages of each kind of problem."""
    return [
        (
            "error" if kind in ERRORS else "warning",
            (ERRORS | WARNINGS)[kind],
            [problem.message for problem in some],
        )
        for kind, some in groupby(found, key=lambda problem: problem.kind)
    ]


def _problems(found: Sequence[Problem], limit: int) -> list[str]:
    lines = []
    for severity, title, messages in grouped(found):
        lines.append(f"{severity}: {title} ({len(messages)})")
        lines += [f"  {message}" for message in messages[:limit]]
        if len(messages) > limit:
            lines.append(f"  ... and {len(messages) - limit} more")
    return lines or ["all well"]
