"""Config and split files of a dataset, and the commands that use them."""

import argparse
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

import yaml

from dataset.image_files import MAX_MEGAPIXELS
from dataset.mask_files import key_of
from dataset.split_files import line_below, write_split_files
from tools.prepare.own.classes import IGNORED, Classes
from tools.prepare.own.images import PERCENTILES
from tools.prepare.own.masks import Masks, Value
from tools.prepare.own.match import ImageAndMask
from tools.prepare.own.settings import Settings
from tools.prepare.own.survey import Survey
from util.colours import background
from util.config.data import SPLIT_NAMES
from util.config.types import IGNORE
from util.errors import join_first, shell_quoted
from util.io import write_once
from util.paths import common_root

BACKGROUND_SHARE = 0.5
"""Share of the pixels from which a class is the background."""


def write_config(
    args: argparse.Namespace, found: Survey, classes: Classes, settings: Settings
) -> None:
    """Write config and split files, or none of them; earlier ones are kept as .old."""
    text = config_text(args, found, classes, settings)
    lists, _ = split_files(found.samples, args.lists)
    for path in filter(Path.exists, output_files(args) if args.force else []):
        names = (f"{path.name}.old{number or ''}" for number in chain([0], count(2)))
        path.replace(next(old for old in map(path.with_name, names) if not os.path.lexists(old)))
    new = [path for path in (args.out, *lists) if not path.exists()]
    try:
        write_once(args.out, text.encode())
        write_split_files(lists)
    except BaseException:
        for path in new:
            path.unlink(missing_ok=True)
        raise


def output_files(args: argparse.Namespace) -> list[Path]:
    """Return the files that may be written."""
    return [args.out, *(args.lists / f"{kind}.txt" for kind in SPLIT_NAMES)]


def split_files(
    samples: Sequence[ImageAndMask], folder: Path
) -> tuple[dict[Path, list[str]], Path]:
    """Return the lines of each split file that has images, and the common root of all files."""
    root = common_root(file for sample in samples for file in sample.files())
    lines: dict[Path, list[str]] = {}
    for sample in samples:
        line = line_below(root, sample.files())
        lines.setdefault(folder / f"{sample.split}.txt", []).append(line)
    return lines, root


def commands(out: Path, methods: Sequence[str]) -> list[str]:
    """Return the commands that check the data and train methods."""
    config = shell_quoted(out)
    return [f"python -m tools.check_data --config {config}"] + [
        f"python {name}.py --config {config} --save-path runs/{shell_quoted(f'{out.stem}/{name}')}"
        for name in methods
    ]


def config_text(
    args: argparse.Namespace, found: Survey, classes: Classes, settings: Settings
) -> str:
    """Return the config as YAML with comments."""
    from tools.html import render  # imports jinja2

    lists, root = split_files(found.samples, args.lists)
    data: dict[str, Any] = {"name": args.out.stem, "root": str(root)}
    data |= {path.stem: str(path) for path in lists}
    tree = dict(settings.config)
    if args.second is not None:
        data |= {"pair": "column", "scale": [0.8, 1.2], "grey_probability": 0}
        if len(classes.names) == 2:
            changed = _changed(classes, key_of(0, found.masks.in_colour))
            tree["evaluation"] = tree["evaluation"] | {"select": f"iou:{changed}"}
    if args.max_megapixels != MAX_MEGAPIXELS:
        data["max_megapixels"] = args.max_megapixels
    ignored = found.masks.values.get(str(IGNORE))
    return render(
        "prepare/own/config.yaml.j2",
        flow=_flow,
        commands=commands(args.out, settings.methods),
        data=data,
        classes=classes,
        label_map=list(_label_map(classes, found.masks)),
        ignored=_pixels([ignored]) if ignored else "",
        background=_background(classes),
        kind=found.kind,
        bands=found.bands,
        percentiles=PERCENTILES,
        settings=tree,
        rare=join_first([f"{n} ({share:.1%})" for n, share in classes.rare().items()], 3),
    )


def _changed(classes: Classes, black: str) -> str:
    """Return the changed one of two classes: the other one is a background by its name, else the
    class of value 0 or of black."""
    unchanged = background(classes.names)
    if unchanged is None:
        unchanged = classes.indices.get(black, classes.other)
    return classes.names[0 if unchanged == 1 else 1]


def _label_map(classes: Classes, masks: Masks) -> Iterator[tuple[str, str, str]]:
    """Yield key, class and a remark for each value or colour."""
    values = masks.values
    for key, label in classes.indices.items():
        why = "; hardly a class: as the nearest" if key not in classes.labels else ""
        found = _pixels([values[key]]) if key in values else "in no mask"
        yield f'"{key}"' if masks.in_colour else key, _meaning(label, classes), found + why
    if classes.other is not None:
        rest = [value for key, value in values.items() if key not in classes.indices]
        yield "other", _meaning(classes.other, classes), f"{len(rest)} others: {_pixels(rest)}"


def _meaning(label: int, classes: Classes) -> str:
    return IGNORED if label == IGNORE else _flow(classes.names[label], width=math.inf)


def _pixels(values: Iterable[Value]) -> str:
    return f"{100 * sum(value.share for value in values):.2f} % of the pixels"


def _background(classes: Classes) -> str:
    """Return the class that fills most of the pixels; "" if there is none, or if a class is
    named background."""
    largest = max(classes.shares)
    if largest < BACKGROUND_SHARE or background(classes.names) is not None:
        return ""
    return classes.names[classes.shares.index(largest)]


def _flow(value: Any, width: float = 84) -> str:
    """Return a value as YAML, to follow a key of the data section."""
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=width, allow_unicode=True)
    return text.removesuffix("...\n").strip().replace("\n", "\n  ")
