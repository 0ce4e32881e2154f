"""Scores of classes from confusion matrices, and percentile bootstrap intervals of IoU (Efron and
Tibshirani, An Introduction to the Bootstrap, chapter 13, 1993)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from util.config.types import IGNORE

RESAMPLES = 1000
LEVEL = 0.95
CHUNK = 100
"""Resamples per batch of the computation."""


class Intervals(NamedTuple):
    """Intervals (low, high) in percent that hold the score with 95 % confidence."""

    miou: tuple[float, float]
    iou: list[tuple[float, float]]
    """Interval of each class."""
    units: int
    """Resampled images or volumes."""

    def __str__(self) -> str:
        low, high = self.miou
        return f"{low:.1f} to {high:.1f}"


def confusion_matrix(prediction: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Count pixels by `target` class (rows) and predicted class: `[C, C]`, int64; 255 in either is
    not counted.

    Neither waits for the device nor needs more memory under deterministic algorithms.
    """
    ignored = (target == IGNORE) | (prediction == IGNORE)
    pairs = torch.where(ignored, num_classes**2, target.long() * num_classes + prediction)
    counts = pairs.new_zeros(num_classes**2 + 1)
    counts.scatter_add_(0, pairs.flatten(), torch.ones_like(pairs).flatten())
    return counts[:-1].view(num_classes, num_classes)


def dice(confusions: Tensor) -> Tensor:
    """Return the Dice of each class `[C]`, averaged over volumes, from confusion matrices
    `[V, C, C]`; a class that a volume and its prediction lack counts 1."""
    hit = confusions.diagonal(dim1=1, dim2=2).double()
    total = confusions.sum(1) + confusions.sum(2)
    return torch.where(total > 0, 2 * hit / total.clamp(min=1), 1.0).mean(0).float()


def class_counts(confusion: Tensor) -> Tensor:
    """Return correct, predicted and true pixels `[..., 3, C]` of a confusion `[..., C, C]`."""
    hit = confusion.diagonal(dim1=-2, dim2=-1)
    return torch.stack([hit, confusion.sum(-2), confusion.sum(-1)], dim=-2)


def iou_intervals(counts: Tensor) -> Intervals | None:
    """Return bootstrap intervals over images, or volumes; None for less than two of them.

    Args:
        counts: `[N, 3, C]`, one row of `class_counts` per image.

    The mean of a resample skips classes absent from it; a class absent from all images counts 0, as
    in the published mIoU.
    """
    number = len(counts)
    if number < 2:
        return None
    values = counts.flatten(1).double().numpy()
    absent = values.reshape(number, 3, -1)[:, 1:].sum((0, 1)) == 0
    random = np.random.default_rng(0)
    resampled = []
    for _ in range(0, RESAMPLES, CHUNK):
        times = random.multinomial(number, np.full(number, 1 / number), CHUNK)
        hit, predicted, true = (times @ values).reshape(CHUNK, 3, -1).swapaxes(0, 1)
        union = predicted + true - hit
        resampled.append(np.divide(hit, union, out=np.full_like(hit, np.nan), where=union > 0))
    iou = 100 * np.concatenate(resampled)
    iou[:, absent] = 0
    empty = np.isnan(iou).all(axis=1)  # resamples of images without labelled pixels
    edges = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
    low, high = np.nanpercentile(iou, edges, axis=0)
    miou_low, miou_high = np.nanpercentile(np.nanmean(iou[~empty], axis=1), edges)
    pairs = zip(low.tolist(), high.tolist(), strict=True)
    return Intervals((float(miou_low), float(miou_high)), list(pairs), number)


def class_scores(confusion: Tensor) -> dict[str, Tensor]:
    """Return F1, precision and recall `[C]` in [0, 1] of a confusion matrix `[C, C]` (rows: truth).

    F1, 2 TP / (2 TP + FP + FN), is the Dice over all pixels of all images; for the Dice by volume,
    see `dice`. Scores of a class without pixels are 0.
    """
    hit, predicted, true = class_counts(confusion)
    return {
        "F1": 2 * hit / (predicted + true).clamp(min=1),
        "precision": hit / predicted.clamp(min=1),
        "recall": hit / true.clamp(min=1),
    }


def confusion_rows(confusion: Tensor, classes: Sequence[str]) -> list[list[object]]:
    """Return a confusion matrix in pixels as rows of a table, with the classes' names."""
    rows = zip(classes, confusion.tolist(), strict=True)
    return [["truth \\ prediction", *classes], *([name, *pixels] for name, pixels in rows)]
