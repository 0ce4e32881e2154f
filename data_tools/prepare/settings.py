"""Training settings that suit images."""

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from data_tools.prepare.survey import ImageFile
from util.evaluation import wants_windows

BATCH = 8
Range = tuple[float, float]


class Settings(NamedTuple):
    """What depends on sizes and numbers of images."""

    crop_size: int
    epochs: int
    epoch_length: int | None
    mode: str
    image_range: Range | None


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
        image_range=_image_range(images),
    )


def _image_range(images: Sequence[ImageFile]) -> Range | None:
    """What images of more than 8 bits use: all bits of whole numbers, or the least to the most."""
    extrema = [image.extrema for image in images if image.extrema]
    if not extrema:
        return None
    low, high = min(low for low, _ in extrema), max(high for _, high in extrema)
    if low < 0 or not (low.is_integer() and high.is_integer()):
        return low, max(high, low + 1e-6)
    return 0, 2 ** max(8, int(high).bit_length()) - 1
