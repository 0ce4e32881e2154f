"""Config and split files of a dataset, and the commands that use them."""

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from dataset.mask_files import key_of
from dataset.split_files import line_below, write_split_files
from tools.prepare.own.classes import IGNORED, Classes
from tools.prepare.own.images import PERCENTILES
from tools.prepare.own.masks import Masks, Value
from tools.prepare.own.match import MatchedSplits
from tools.prepare.own.settings import Settings
from tools.prepare.own.survey import Survey
from util.colours import background
from util.config.types import IGNORE
from util.errors import join_first
from util.io import write_once
from util.paths import common_root

MOST = 0.5
"""Share of the pixels from which a class is the background."""


def lines_of(splits: MatchedSplits, folder: Path) -> tuple[dict[Path, list[str]], Path]:
    """Return the lines of each split file that has images, and the common root of all files."""
    root = common_root(file for sample in splits.all() for file in sample.files())
    lines = {
        folder / f"{kind}.txt": [line_below(root, sample.files()) for sample in samples]
        for kind, samples in splits._asdict().items()
        if samples
    }
    return lines, root


def write_new(out: Path, text: str, lists: dict[Path, list[str]]) -> None:
    """Write config and split files, or none of them."""
    new = [path for path in (out, *lists) if not path.exists()]
    try:
        write_once(out, text.encode())
        write_split_files(lists)
    except BaseException:
        for path in new:
            path.unlink(missing_ok=True)
        raise


def commands(out: Path, script: str | None) -> list[str]:
    """Return the commands that check the data, train a baseline, and train a method, if any."""
    config = shlex.quote(str(out))
    scripts = ["supervised", *[script] * (script is not None)]
    train = [
        f"python {name}.py --config {config} --save-path runs/{shlex.quote(f'{out.stem}/{name}')}"
        for name in scripts
    ]
    return [f"python -m tools.check_data --config {config}", *train]


def config_text(
    out: Path, data: dict[str, Any], found: Survey, classes: Classes, settings: Settings
) -> str:
    """Return the config as YAML with comments.

    Args:
        data: name, root, split files, and keys of image pairs.
    """
    from tools.html import render  # imports jinja2

    masks, evaluation = found.masks, {"mode": settings.mode}
    if "pair" in data and len(classes.names) == 2:
        evaluation["select"] = f"iou:{_changed(classes)}"
    rare = [f"{name} ({share:.1%})" for name, share in classes.rare().items()]
    return render(
        "prepare/own/config.yaml.j2",
        flow=_flow,
        commands=commands(out, settings.preset.script if "unlabeled" in data else None),
        data=data,
        classes=classes,
        label_map=list(_label_map(classes, masks)),
        ignored=_pixels([masks.values[IGNORE]])
        if IGNORE in classes.of and IGNORE in masks.values
        else "",
        background=_background(classes),
        bands=found.bands,
        percentiles=PERCENTILES,
        preset=settings.preset,
        settings=settings,
        evaluation=evaluation,
        rare=join_first(rare, 3),
    )


def _changed(classes: Classes) -> str:
    """Return the changed one of two classes: the other one is a background by its name, else the
    class of value 0 or of black."""
    unchanged = background(classes.names)
    if unchanged is None:
        unchanged = classes.class_of(0)
    return classes.names[0 if unchanged == 1 else 1]


def _label_map(classes: Classes, masks: Masks) -> Iterator[tuple[str, str, str]]:
    """Yield key, class and a remark for each value or colour."""
    values = masks.values
    for code, label in classes.of.items():
        key = key_of(code, masks.in_colour)
        why = "; hardly a class: as the nearest" if code in classes.nearest else ""
        found = _pixels([values[code]]) if code in values else "in no mask"
        yield f'"{key}"' if masks.in_colour else key, _meaning(label), found + why
    if classes.other is not None:
        rest = [value for code, value in values.items() if code not in classes.of]
        yield "other", _meaning(classes.other), f"{len(rest)} others: {_pixels(rest)}"


def _meaning(label: int) -> str:
    return IGNORED if label == IGNORE else str(label)


def _pixels(values: Iterable[Value]) -> str:
    return f"{100 * sum(value.share for value in values):.2f} % of the pixels"


def _background(classes: Classes) -> str:
    """Return the class that fills most of the pixels; "" if there is none, or if a class is
    named background."""
    largest = max(classes.shares)
    if largest < MOST or background(classes.names) is not None:
        return ""
    return classes.names[classes.shares.index(largest)]


def _flow(value: Any) -> str:
    """Return a value as YAML, to follow a key of the data section."""
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=84, allow_unicode=True)
    return text.removesuffix("...\n").strip().replace("\n", "\n  ")
