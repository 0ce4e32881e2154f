"""A config as its author would write it, and what to do with it."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dataset.mask_files import key_of
from tools.prepare.own.bands import PERCENTILES, Bands
from tools.prepare.own.classes import Classes
from tools.prepare.own.mask_values import Value
from tools.prepare.own.settings import BATCH, Settings
from util.config.schema import IGNORE


def config_text(
    out: Path,
    data: dict[str, Any],
    bands: Bands,
    classes: Classes,
    values: Mapping[int, Value],
    settings: Settings,
) -> str:
    """The config as YAML.

    Args:
        data: name, root, lists, and what is to be said of pairs.
        values: what the masks hold.
    """
    check, train = commands(out, "unlabeled" in data)
    evaluation = {"mode": settings.mode}
    if "pair" in data and len(classes.names) == 2:
        evaluation["select"] = f"iou:{classes.names[1]}"  # of what changed
    lines = [
        f"# {data['name']}: written by `python -m tools.prepare init`; change what you like.",
        "#",
        f"#   {check}",
        f"#   {train}  # first with --dry-run",
        "data:",
        *(f"  {key}: {_flow(value)}" for key, value in data.items()),
        *_class_lines(classes, values),
        *_band_lines(bands),
        "model: {backbone: resnet50s, pretrained: hub}",
        "optimizer: {lr: 0.001, lr_multi: 10}",
        f"evaluation: {_flow(evaluation)}",
        f"crop_size: {settings.crop_size}",
        f"epochs: {settings.epochs}",
        *([f"epoch_length: {settings.epoch_length}"] if settings.epoch_length else []),
        f"batch_size: {BATCH}",
        "conf_thresh: 0.95",
    ]
    return "\n".join(lines) + "\n"


def commands(out: Path, unlabeled: bool) -> tuple[str, str]:
    """How to check the data, and how to train."""
    config, folder = shlex.quote(str(out)), shlex.quote(f"runs/{out.stem}")
    script = "corrmatch" if unlabeled else "supervised"
    return (
        f"python -m tools.check_data --config {config}",
        f"python {script}.py --config {config} --save-path {folder}",
    )


def _band_lines(bands: Bands) -> list[str]:
    """The bands that the network sees, and how their values become 0 to 1."""
    lines = []
    for key, value in bands.settings.items():
        if key == "image_range":
            low, high = PERCENTILES
            lines.append(
                f"  # What becomes 0 and 1: percentiles {low} and {high} of the values; write"
            )
            lines.append("  # the ends of the sensor's scale instead if those beyond matter.")
        if key == "image_range" and isinstance(bands.kind.bands, tuple):
            lines += [f"  {key}:", *(f"    - {pair}" for pair in value)]
        else:
            lines.append(f"  {key}: {_flow(value)}")
        if key == "bands" and isinstance(value, tuple) and not bands.kind.in_colour:
            lines.append("  # rgb_bands: [3, 2, 1]  # red, green and blue, if they are among them")
    return lines


def _class_lines(classes: Classes, values: Mapping[int, Value]) -> list[str]:
    """Names, colours, and what each value was taken for and why, to be read and changed."""
    lines = [f"  classes: {_flow(classes.names)}"]
    if classes.palette:
        lines += ["  palette:", *(f"    - {list(colour)}" for colour in classes.palette)]
    if not classes.mapped:
        if IGNORE in classes.of:
            lines.append(f"  # mask value {IGNORE} is ignored: {_pixels([values[IGNORE]])}")
        return lines
    lines.append("  label_map:  # value or colour in the masks: class; any other is an error")
    for code, label in classes.of.items():
        key = key_of(code, classes.in_colour)
        key = f'"{key}"' if classes.in_colour else key
        why = "; hardly a class: as the nearest" if code in classes.nearest else ""
        found = _pixels([values[code]]) if code in values else "in no mask"
        lines.append(f"    {key}: {_meaning(label)}  # {found}{why}")
    if classes.other is not None:
        rest = [value for code, value in values.items() if code not in classes.of]
        lines[-len(classes.of) - 1] = "  label_map:  # value or colour in the masks: class"
        lines.append(f"    other: {_meaning(classes.other)}  # {len(rest)} others: {_pixels(rest)}")
    return lines


def _meaning(label: int) -> str:
    return "ignore" if label == IGNORE else str(label)


def _pixels(values: Sequence[Value]) -> str:
    return f"{100 * sum(value.share for value in values):.2f} % of the pixels"


def _flow(value: Any) -> str:
    """A value as YAML that stands behind a key of the data section."""
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=84, allow_unicode=True)
    return text.removesuffix("...\n").strip().replace("\n", "\n  ")
