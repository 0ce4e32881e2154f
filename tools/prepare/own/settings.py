"""Training settings that suit images."""

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from inference.inputs import wants_windows
from tools.prepare.own.bands import ImageFile

BATCH = 8


class Settings(NamedTuple):
    """What depends on sizes and numbers of images."""

    crop_size: int
    epochs: int
    epoch_length: int | None
    mode: str


def choose_settings(images: Sequence[ImageFile], largest_set: int) -> Settings:
    """Crops of most of an image, 33 to 513; at least 100 steps an epoch, about 200 000 at most.

    `largest_set`: images in the longer one of the labelled and unlabelled lists.
    """
    short, long = (median(f(image.size) for image in images) for f in (min, max))
    crop = max(33, min(513, int(0.9 * short) // 32 * 32 + 1))
    steps = largest_set // BATCH
    return Settings(
        crop_size=crop,
        epochs=min(80, max(10, 200_000 // max(1, steps))),
        epoch_length=100 if steps < 100 else None,
        mode="sliding_window" if wants_windows(long, crop) else "original",
    )
