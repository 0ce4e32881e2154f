"""Network and training settings that suit images, device and time."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from inference.inputs import wants_windows
from tools.prepare.own.bands import ImageFile

PATCH = 14


class Preset(NamedTuple):
    """Settings of one size."""

    script: str
    """The method to try beside the baseline, see docs/methods.md."""
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
"""small: minutes to hours on a CPU; base: a GPU of 12 GB; large: the strongest, a GPU of 24 GB."""
SGD_RANDOM = {"lr": 0.01, "lr_multi": 1}
"""Random weights need higher rates than pretrained ones."""


class Settings(NamedTuple):
    """Settings of a config."""

    preset: Preset
    """The chosen preset, with the pretrained weights found and learning rates for them."""
    crop_size: int
    epochs: int
    epoch_length: int | None
    mode: str


def choose_preset() -> str:
    """Return the preset for this machine: small without a GPU."""
    import torch

    return "base" if torch.cuda.is_available() else "small"


def choose_settings(
    images: Sequence[ImageFile], largest_set: int, preset: str, pretrained: str
) -> Settings:
    """Choose crops of most of an image, 33 pixels to the preset's; at least 100 steps an epoch,
    about 200 000 at most.

    Args:
        largest_set: images in the longer one of the labelled and unlabelled lists.
        pretrained: `model.pretrained`.
    """
    chosen = PRESETS[preset]
    short, long = (median(f(image.size) for image in images) for f in (min, max))
    crop = max(33, min(chosen.largest_crop, int(0.9 * short) // 32 * 32 + 1))
    if chosen.model.get("network") == "dpt":
        crop = max(2 * PATCH, crop // PATCH * PATCH)
    steps = largest_set // chosen.batch_size
    random = pretrained == "none" and "name" not in chosen.optimizer
    return Settings(
        preset=chosen._replace(
            model={**chosen.model, "pretrained": pretrained},
            optimizer=SGD_RANDOM if random else chosen.optimizer,
        ),
        crop_size=crop,
        epochs=min(80, max(10, 200_000 // max(1, steps))),
        epoch_length=100 if steps < 100 else None,
        mode="sliding_window" if wants_windows(long, crop) else "original",
    )


def find_pretrained(backbone: str) -> str:
    """Return `model.pretrained` for a backbone: file or hub where weights can be had, else none."""
    from model.hub import is_on_hub
    from model.pretrained import PRETRAINED

    if Path(PRETRAINED, f"{backbone}.pth").is_file():
        return "file"
    return "hub" if is_on_hub(backbone) else "none"
