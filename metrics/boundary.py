"""Boundary IoU: quality of contours, independent of object size.

Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021: the
IoU of two bands, the pixels of mask and prediction within a distance d of their own contour; d is
2 % of the image's diagonal. As in the authors' code, the distance is the Chebyshev distance and
the image's edge is a contour. Intersections and unions are summed over all images. Ignored
pixels, which the paper does not have, are not counted and make no contour.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from util import distributed
from util.config.types import IGNORE

PUBLISHED_DISTANCE = 0.02


class BoundaryIoU:
    """Sums over images; a `ScoreCollector` of `inference.evaluation.evaluate`."""

    def __init__(self, classes: int, distance: float, device: torch.device):
        self.distance, self.classes = distance, classes
        self.pixels = torch.zeros(2, classes, dtype=torch.int64, device=device)
        """Pixels in both bands, and in either, by class."""

    @property
    def title(self) -> str:
        """Title of a column; names the distance, a share of the diagonal, if it is not 2 %."""
        other = "" if self.distance == PUBLISHED_DISTANCE else f" ({self.distance:g})"
        return f"boundary IoU{other}"

    def add(self, index: int, predicted: Tensor, target: Tensor) -> None:
        """Count an image: classes `[H, W]`; `index` is ignored."""
        distance = max(1, round(self.distance * math.hypot(*target.shape)))
        predicted = torch.where(target == IGNORE, IGNORE, predicted)
        truth, prediction = (
            torch.where(band(labels, distance), labels, IGNORE).flatten().long()
            for labels in (target, predicted)
        )
        both = self._count(truth[truth == prediction])
        self.pixels[0] += both
        self.pixels[1] += self._count(truth) + self._count(prediction) - both

    def _count(self, labels: Tensor) -> Tensor:
        return torch.bincount(labels, minlength=self.classes)[: self.classes]

    def iou(self) -> Tensor:
        """Return the IoU `[C]` in [0, 1] over all processes; 0 for an absent class."""
        both, either = distributed.all_reduce(self.pixels.clone()).cpu()
        return both / either.clamp(min=1)


def band(labels: Tensor, distance: int) -> Tensor:
    """Return pixels `[H, W]`, bool, up to `distance` from another class or the image's edge."""
    labelled = labels != IGNORE
    values = labels.float()
    highest = _highest(values.masked_fill(~labelled, -math.inf), distance)
    lowest = -_highest((-values).masked_fill(~labelled, -math.inf), distance)
    near = (highest != values) | (lowest != values)
    inside = torch.zeros_like(near)
    inside[distance:-distance, distance:-distance] = True
    return labelled & (near | ~inside)


def _highest(values: Tensor, distance: int) -> Tensor:
    """Return the maximum in the square of side 2 `distance` + 1 around each pixel."""
    side = 2 * distance + 1
    columns = F.max_pool2d(values[None, None], (side, 1), 1, (distance, 0))
    return F.max_pool2d(columns, (1, side), 1, (0, distance))[0, 0]
