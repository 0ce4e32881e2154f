"""Images with the lowest mean IoU, and pictures of them."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from inference.overlay import contents, overlay, percent, side_by_side, with_legend
from util import distributed
from util.colours import Colour
from util.config.data import Data
from util.config.types import IGNORE


class ImageScores:
    """Mean IoU of each image, a `Watcher` of `inference.evaluation.evaluate`."""

    def __init__(self, images: int, device: torch.device):
        self.mious = torch.zeros(images, dtype=torch.float64, device=device)
        """By image index; 0 for images of other ranks."""

    def add(self, index: int, predicted: Tensor, target: Tensor) -> None:
        """Score an image: classes `[H, W]`."""
        self.mious[index] = image_miou(predicted, target)

    def worst(self, count: int) -> list[tuple[int, float]]:
        """Return index and score of the worst images of all ranks, the worst first, without images
        that have no labelled pixel."""
        mious = distributed.all_reduce(self.mious.clone()).tolist()
        order = sorted((miou, index) for index, miou in enumerate(mious) if miou < math.inf)
        return [(index, miou) for miou, index in order[:count]]


def image_miou(predicted: Tensor, target: Tensor) -> float:
    """Return the mean IoU in [0, 1] over the classes in mask or prediction; infinite for none."""
    known = target != IGNORE
    truth, found = target[known].long(), predicted[known].long()
    both = torch.bincount(truth[truth == found], minlength=IGNORE)
    either = (
        torch.bincount(truth, minlength=IGNORE) + torch.bincount(found, minlength=IGNORE) - both
    )
    present = either > 0
    return (both[present] / either[present]).mean().item() if present.any() else math.inf


def comparison(
    dates: Sequence[Image.Image],
    target: np.ndarray,
    predicted: np.ndarray,
    data: Data,
    title: str,
) -> Image.Image:
    """Draw the image (all dates), mask and prediction side by side, with the shares of classes."""
    panels = [*dates, *(overlay(dates[-1], mask, data) for mask in (target, predicted))]
    in_mask, in_prediction = (
        {name: (colour, share) for colour, name, share in contents(mask, data)}
        for mask in (target, predicted)
    )
    legend = [
        (colour, f"{name} {_share(in_mask.get(name))} / {_share(in_prediction.get(name))}")
        for name, (colour, _) in (in_mask | in_prediction).items()
    ]
    image = "image" if len(dates) == 1 else "both dates"
    heading = f"{title}: {image}, mask, prediction; shares in mask / prediction:"
    return with_legend(side_by_side([panels]), [(None, heading), *legend])


def _share(found: tuple[Colour, float] | None) -> str:
    return percent(found[1]) if found else "0"
