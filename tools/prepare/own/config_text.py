"""Text of a config with comments, and the commands that use it."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dataset.mask_files import key_of
from tools.prepare.own.bands import PERCENTILES, Bands
from tools.prepare.own.classes import Classes
from tools.prepare.own.mask_values import Value
from tools.prepare.own.settings import Settings
from util.colours import background
from util.config.types import IGNORE
from util.errors import first_of

FEW_PIXELS = 0.02
"""Share of the pixels below which class weights are proposed."""
MOST = 0.5
"""Share of the pixels from which a class is the background."""


def config_text(
    out: Path,
    data: dict[str, Any],
    bands: Bands,
    classes: Classes,
    values: Mapping[int, Value],
    settings: Settings,
) -> str:
    """Return the config as YAML.

    Args:
        data: name, root, split files, and keys of image pairs.
        values: values or colours of the masks.
    """
    check, *train = commands(out, settings.preset.script if "unlabeled" in data else None)
    evaluation = {"mode": settings.mode}
    if "pair" in data and len(classes.names) == 2:
        evaluation["select"] = f"iou:{classes.names[1]}"  # of the changed class
    lines = [
        f"# {data['name']}: written by `python -m tools.prepare init`; change what you like.",
        "#",
        f"#   {check}",
        *(f"#   {command}" for command in train),
        "data:",
        *(f"  {key}: {_flow(value)}" for key, value in data.items()),
        *_class_lines(classes, values),
        *_background_lines(classes, values),
        *_band_lines(bands),
        *_pretrained_lines(settings),
        f"model: {_flow(settings.preset.model)}",
        f"optimizer: {_flow(settings.preset.optimizer)}",
        *_rare_lines(classes, values),
        f"evaluation: {_flow(evaluation)}",
        f"crop_size: {settings.crop_size}",
        f"epochs: {settings.epochs}",
        *([f"epoch_length: {settings.epoch_length}"] if settings.epoch_length else []),
        f"batch_size: {settings.preset.batch_size}",
        "conf_thresh: 0.95",
    ]
    return "\n".join(lines) + "\n"


def _pretrained_lines(settings: Settings) -> list[str]:
    """Return a comment where there are no pretrained weights."""
    model = settings.preset.model
    if model["pretrained"] != "none":
        return []
    return [
        "# No pretrained weights were found, and the hub could not be reached. With them, scores",
        f"# are clearly higher: put the file into pretrained/{model['backbone']}.pth and repeat",
        "# the command with --force, which also sets the learning rates for them.",
    ]


def commands(out: Path, script: str | None) -> list[str]:
    """Return the commands that check the data, train a baseline, and train a method, if any."""
    config = shlex.quote(str(out))
    scripts = ["supervised", *[script] * (script is not None)]
    train = [
        f"python {name}.py --config {config} --save-path runs/{shlex.quote(f'{out.stem}/{name}')}"
        for name in scripts
    ]
    return [f"python -m tools.check_data --config {config}", *train]


def _rare_lines(classes: Classes, values: Mapping[int, Value]) -> list[str]:
    """Return a proposal where classes are rare."""
    rare = rare_classes(classes, values)
    if not rare:
        return []
    some = first_of([f"{name} ({share:.1%})" for name, share in rare.items()], 3)
    return [
        f"# Few pixels: {some}. If their IoU stays low:",
        "# criterion: {class_weights: auto}",
    ]


def class_shares(classes: Classes, values: Mapping[int, Value]) -> list[float]:
    """Return the share of the pixels that each class has in the masks."""
    shares = [0.0] * len(classes.names)
    for code, value in values.items():
        label = classes.of.get(code, classes.other)
        if label is not None and label != IGNORE:
            shares[label] += value.share
    return shares


def rare_classes(classes: Classes, values: Mapping[int, Value]) -> dict[str, float]:
    """Return the share in the masks of each class with less than `FEW_PIXELS` of the pixels."""
    shares = zip(classes.names, class_shares(classes, values), strict=True)
    return {name: share for name, share in shares if share < FEW_PIXELS}


def _background_lines(classes: Classes, values: Mapping[int, Value]) -> list[str]:
    """Return the class that fills most of the pixels, unless one is called background."""
    shares = class_shares(classes, values)
    largest = max(range(len(shares)), key=shares.__getitem__)
    if shares[largest] < MOST or background(classes.names) is not None:
        return []
    return [f"  background: {_flow(classes.names[largest])}  # overlays leave it as photographed"]


def _band_lines(bands: Bands) -> list[str]:
    """Return the bands of the network's input, and the range of their values."""
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
    """Return names, colours, and the meaning of each value, for the user to check and change."""
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
    """Return a value as YAML, to follow a key of the data section."""
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=84, allow_unicode=True)
    return text.removesuffix("...\n").strip().replace("\n", "\n  ")
