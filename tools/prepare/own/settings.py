"""Network and training settings for images, device and time."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from inference.inputs import wants_windows
from tools.prepare.own.images import ImageFile
from util.errors import UserError
from util.paths import find_path

PATCH = 14
"""Side of the patches of DINOv2, in pixels."""
UNITS = {"min": 60, "h": 3600, "d": 86400}
EPOCHS = 10
"""Epochs (and validations) of a short run, if validation is fast."""


class Preset(NamedTuple):
    """Settings of one size."""

    script: str
    """Method to try after the baseline, see docs/methods.md."""
    model: dict[str, Any]
    optimizer: dict[str, Any]
    batch_size: int
    largest_crop: int


SGD = {"lr": 0.001, "lr_multi": 10}
PRESETS = {
    "small": Preset("fixmatch", {"backbone": "efficientnet_lite0", "channels": 64}, SGD, 4, 193),
    "base": Preset("unimatch", {"backbone": "resnet50s"}, SGD, 8, 513),
    "large": Preset(
        "unimatch_v2",
        {"network": "dpt", "backbone": "vit_base_patch14_dinov2"},
        {"name": "adamw", "lr": 5.0e-6, "lr_multi": 40, "weight_decay": 0.01},
        8,
        518,
    ),
}
"""small: minutes to hours on a CPU; base: a GPU; large: best scores, on a GPU. With large crops,
base and large need `micro_batch` on GPUs of 24 GB and less."""
SGD_RANDOM = {"lr": 0.01, "lr_multi": 1}
"""Random weights need higher rates than pretrained ones."""


class Settings(NamedTuple):
    """Settings for a dataset."""

    preset: str
    methods: list[str]
    """Scripts to run: the baseline, and with unlabelled images the preset's method."""
    config: dict[str, Any]
    """Sections and keys of the config after `data`."""


def choose_settings(
    images: Sequence[ImageFile], labeled: int, unlabeled: int, preset: str | None
) -> Settings:
    """Choose crops of most of an image, at least 28 pixels and at most the preset's; epochs of at
    least 100 steps; and about 200 000 steps in all, but 10 to 80 epochs.

    Args:
        labeled, unlabeled: number of images of these splits.
        preset: None for base with a GPU, small without.
    """
    import torch

    preset = preset or ("base" if torch.cuda.is_available() else "small")
    chosen = PRESETS[preset]
    pretrained = find_pretrained(chosen.model["backbone"])
    short, long = (median(f(image.size) for image in images) for f in (min, max))
    crop = max(33, min(chosen.largest_crop, int(0.9 * short) // 32 * 32 + 1))
    if chosen.model.get("network") == "dpt":
        crop = max(2 * PATCH, crop // PATCH * PATCH)
    steps = max(labeled, unlabeled) // chosen.batch_size
    is_random = pretrained == "none" and chosen.optimizer is SGD
    config = {
        "model": chosen.model | {"pretrained": pretrained},
        "optimizer": SGD_RANDOM if is_random else chosen.optimizer,
        "evaluation": {"mode": "sliding_window" if wants_windows(long, crop) else "original"},
        "crop_size": crop,
        "epochs": min(80, max(10, 200_000 // max(1, steps))),
        # Of all methods the same, also of SupOnly, which sees fewer images.
        "epoch_length": max(100, steps),
        "batch_size": chosen.batch_size,
        "conf_thresh": 0.95,
    }
    return Settings(preset, ["supervised", *[chosen.script] * (unlabeled > 0)], config)


def find_pretrained(backbone: str) -> str:
    """Return `model.pretrained` for a backbone: file or hub if weights are available, else none."""
    from model.hub import is_on_hub
    from model.pretrained import PRETRAINED_FOLDER

    if find_path(PRETRAINED_FOLDER / f"{backbone}.pth").is_file():
        return "file"
    return "hub" if is_on_hub(backbone) else "none"


def seconds_of(text: str) -> float:
    """Return the seconds of `90min`, `2h` or `1.5d`; raises `UserError` for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(min|h|d)", text)
    seconds = float(found[1]) * UNITS[found[2]] if found else 0.0
    if seconds <= 0:
        raise UserError(f"--time-budget {text}: expected a time such as 90min, 2h or 1.5d")
    return seconds


def fit_schedule(
    seconds: float, epochs: int, steps: int, step_seconds: float, validation_seconds: float
) -> tuple[int, int]:
    """Return epochs and steps per epoch that fit a time; at most the given ones.

    Where fewer than `EPOCHS` epochs fit, shortens them to fit more, until validation takes half of
    the time.
    """
    fitting = int(seconds / (steps * step_seconds + validation_seconds))
    if fitting >= min(EPOCHS, epochs):
        return min(fitting, epochs), steps
    shorter = int(seconds / 2 / max(validation_seconds, 1e-9))
    epochs = min(EPOCHS, epochs, max(fitting, shorter))
    steps = min(steps, int((seconds / max(epochs, 1) - validation_seconds) / step_seconds))
    if epochs < 1 or steps < 1:
        raise UserError(
            f"--time-budget: a validation takes {validation_seconds:.0f} s and a step "
            f"{step_seconds:.1f} s on this machine; the config is written with its usual epochs. "
            "Fix: allow more time, or fewer validation images (--val)"
        )
    return epochs, steps


def schedule_for(config_file: Path, script: str, seconds: float) -> tuple[int, int, float]:
    """Measure steps of a method and fit the epochs of a config to a time.

    Returns epochs, steps per epoch and the hours that they take.
    """
    print(f"measuring steps of {script}.py", file=sys.stderr, flush=True)
    from engine.command import measure_method
    from tools.methods import method_of
    from util.config.loading import load_config

    config = load_config(config_file)
    found, length, images = measure_method(method_of(script), config)
    every = config.evaluation.every
    step, validation = found.hours(1, 1, 0, every), found.hours(1, 0, images, every)
    epochs, steps = fit_schedule(seconds, config.epochs, length, 3600 * step, 3600 * validation)
    return epochs, steps, epochs * (steps * step + validation)
