"""Report an inspection: as text for the terminal, as numbers for JSON."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from dataset.mask_files import LabelLookup
from tools.check_data.image_stats import BandFacts, channel_names
from tools.check_data.inspect import CROPS, CheckedSplit
from tools.check_data.problems import MOSTLY_IGNORED_SHARE, Problem, grouped
from util.config.data import Data
from util.config.schema import Config
from util.config.types import IGNORE
from util.errors import counted, join_first
from util.tables import text_table

VALUES_SHOWN = 24
FACTS = {"sizes": "size", "modes": "mode", "bits": "bits", "exif": "exif", "shapes": "shape"}
"""Fields of `ImageFacts` by the key of their counts in the report."""


def numbers(
    splits: Sequence[CheckedSplit], found: Sequence[Problem], config: Config
) -> dict[str, Any]:
    """Return all figures and problems, for JSON; shares are of all pixels of a split's masks."""
    return {
        "report": "tools.check_data",
        "dataset": config.data.name,
        "ok": all(problem.severity != "error" for problem in found),
        "lists": {item.name: list_numbers(item, config) for item in splits},
        "problems": [
            {
                "kind": problem.kind,
                "severity": problem.severity,
                "list": problem.split,
                "line": problem.line,
                "message": problem.message,
            }
            for problem in found
        ],
    }


def counts(values: Iterable[Any]) -> dict[Any, int]:
    """Count equal values, the most frequent first."""
    return dict(Counter(values).most_common())


def list_numbers(found: CheckedSplit, config: Config) -> dict[str, Any]:
    """Return the figures of one split."""
    facts = [item.facts for item in found.items if item.facts]
    grey = counts(int(image.brightness) // 32 for image in facts)
    record: dict[str, Any] = {
        "source": found.listed.name,
        "images": len(found.items),
        **{key: counts(getattr(f, name) for f in facts) for key, name in FACTS.items()},
        "brightness": {f"{32 * s} to {32 * s + 31}": grey.get(s, 0) for s in range(8)},
        "bands": band_numbers(found.bands, config.data),
    }
    if found.name == "unlabeled":
        return record
    pixels, masks, crops = found.pixels, found.masks_with, found.crops
    labels = LabelLookup(config.data)

    def figures(index: int) -> dict[str, Any]:
        share = int(pixels[index]) / max(1, int(pixels.sum()))
        return {"pixels": int(pixels[index]), "share": share, "images": int(masks[index])}

    record |= {
        "classes": {name: figures(index) for index, name in enumerate(config.data.classes)},
        "ignored": figures(IGNORE),
        "values": {labels.name(code): count for code, count in found.values.items()},
    }
    if len(crops):
        record["crops"] = {
            "drawn": len(crops),
            "mostly_ignored": int((crops > MOSTLY_IGNORED_SHARE).sum()),
            "without_label": int((crops == 1).sum()),
        }
    return record


def band_numbers(found: BandFacts | None, data: Data) -> dict[str, Any]:
    """Return, for each band, shares of the pixels by value, and the number of images in which it
    has one value everywhere."""
    if found is None:
        return {}
    pixels = found.steps.sum(1, keepdims=True)
    steps, ends = (found.steps / pixels).tolist(), (found.ends / pixels).tolist()
    columns = zip(channel_names(data), steps, ends, found.constant.tolist(), strict=True)
    return {
        name: {"steps": shares, "lowest": low, "highest": high, "constant": constant}
        for name, shares, (low, high), constant in columns
    }


def text(report: dict[str, Any], found: Sequence[Problem], limit: int) -> str:
    """Write the report for the terminal; at most `limit` problems of a kind."""
    lists: dict[str, Any] = report["lists"]
    lines = []
    for split, record in lists.items():
        sizes = [f"{size} ({count})" for size, count in record["sizes"].items()]
        images = counted(record["images"], "image")
        lines.append(f"{split:<10} {images}, {record['source']}, {join_first(sizes, 3)}")
    head, *rows = class_rows(lists)
    cells = [[f"{c:.2%}" if isinstance(c, float) else c for c in row] for row in rows]
    classes = text_table([head, *cells], "<>")
    return "\n".join([*lines, "", classes, "", *_details(lists), *_problems(found, limit)])


def class_rows(lists: dict[str, Any]) -> list[list[Any]]:
    """Return a head, and for each class, and ignored pixels, the share of the pixels and number of
    images in each split with masks."""
    records = {split: record for split, record in lists.items() if "classes" in record}
    columns = [record["classes"] | {None: record["ignored"]} for record in records.values()]
    rows = [
        [name or "ignored", *chain(*((c[name]["share"], c[name]["images"]) for c in columns))]
        for name in columns[0]
    ]
    return [["class", *chain(*((split, "images") for split in records))], *rows]


def _details(lists: dict[str, Any]) -> list[str]:
    """Describe values of the masks, constant bands, and random crops."""
    lines = []
    for split, record in lists.items():
        if values := record.get("values"):
            lines.append(
                f"{split}: mask values by frequency  {join_first(list(values), VALUES_SHOWN, '  ')}"
            )
        lines += [
            f"{split}: {name} has one value everywhere in {counted(band['constant'], 'image')}"
            for name, band in record["bands"].items()
            if band["constant"]
        ]
        if crops := record.get("crops"):
            lines.append(
                f"{split}: {crops['drawn']} random crops ({CROPS} per image, padding counts as "
                f"ignored): {crops['mostly_ignored']} more than half ignored, "
                f"{crops['without_label']} entirely"
            )
    return [*lines, ""] if lines else []


def _problems(found: Sequence[Problem], limit: int) -> list[str]:
    lines = []
    for severity, title, messages in grouped(found):
        lines.append(f"{severity}: {title} ({len(messages)})")
        lines += [f"  {message}" for message in messages[:limit]]
        if len(messages) > limit:
            lines.append(f"  ... and {len(messages) - limit} more")
    return lines or ["no problems found"]
