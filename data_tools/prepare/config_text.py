"""A config as its author would write it, and what to do with it."""

import shlex
from pathlib import Path
from typing import Any

import yaml

from data_tools.prepare.classes import Classes
from data_tools.prepare.settings import BATCH, Settings
from dataset.labels import key_of
from util.config import IGNORE


def config_text(
    out: Path, data: dict[str, Any], classes: Classes, shares: dict[int, float], settings: Settings
) -> str:
    """The config as YAML.

    Args:
        data: name, root and lists.
        shares: of the pixels, by value or colour.
    """
    check, train = commands(out, "unlabeled" in data)
    lines = [
        f"# {data['name']}: written by `python -m tools.prepare init`; change what you like.",
        "#",
        f"#   {check}",
        f"#   {train}  # first with --dry-run",
        "data:",
        *(f"  {key}: {_flow(value)}" for key, value in data.items()),
        *_class_lines(classes, shares),
        *([f"  image_range: {_flow(settings.image_range)}"] if settings.image_range else []),
        "model: {backbone: resnet50s, pretrained: hub}",
        "optimizer: {lr: 0.001, lr_multi: 10}",
        f"evaluation: {{mode: {settings.mode}}}",
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


def _class_lines(classes: Classes, shares: dict[int, float]) -> list[str]:
    lines = [f"  classes: {_flow(classes.names)}"]
    if classes.palette:
        lines += ["  palette:", *(f"    - {list(colour)}" for colour in classes.palette)]
    if classes.mapped:
        lines.append("  label_map:  # value or colour in the masks: class; any other is an error")
    for code, label in classes.of.items() if classes.mapped else ():
        key = key_of(code, classes.in_colour)
        key = f'"{key}"' if classes.in_colour else key
        meaning = "ignore" if label == IGNORE else label
        lines.append(f"    {key}: {meaning}  # {100 * shares[code]:.2f} % of the pixels")
    return lines


def _flow(value: Any) -> str:
    """A value as YAML that stands behind a key of the data section."""
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=84, allow_unicode=True)
    return text.removesuffix("...\n").strip().replace("\n", "\n  ")
