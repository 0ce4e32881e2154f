"""Quality of pseudo-labels and calibration of their confidence, on labelled images.

Expected calibration error: Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian
Binning", AAAI 2015; Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from util import distributed
from util.config.types import IGNORE

CONFIDENCE_BINS = 15
"""Bins of equal width in [0, 1], as by Guo et al."""
FIXED_POINT_ONE = 2**20
"""Confidences are summed as integers, in units of 1 / FIXED_POINT_ONE: the sum is the same in any
order and for any number of processes."""


class PseudoLabelScores:
    """Counts of labelled pixels by predicted class, confidence and correctness.

    They stay on the device until `summary`.
    """

    def __init__(self, classes: int, threshold: float | Tensor, device: torch.device):
        self.classes, self.threshold = classes, threshold
        self._counts = torch.zeros(classes * CONFIDENCE_BINS * 4, dtype=torch.int64, device=device)
        """Pixels by class, bin, above the threshold (0, 1) and correct (0, 1), flattened."""
        self._sums = torch.zeros(CONFIDENCE_BINS, dtype=torch.int64, device=device)
        """Sums of confidences, by bin."""

    def add(self, predicted: Tensor, confidence: Tensor, target: Tensor) -> None:
        """Count an image: classes, their probabilities and the mask, `[H, W]` each."""
        confidence = confidence.nan_to_num(0)  # NaN has no bin; the evaluation reports it
        labelled = (target != IGNORE).long()
        bin_index = (confidence * CONFIDENCE_BINS).long().clamp(max=CONFIDENCE_BINS - 1)
        above = (confidence >= self.threshold).long()
        right = (predicted == target).long()
        index = ((predicted.long() * CONFIDENCE_BINS + bin_index) * 2 + above) * 2 + right
        self._counts.scatter_add_(0, index.flatten(), labelled.flatten())
        units = (confidence * FIXED_POINT_ONE).round().long() * labelled
        self._sums.scatter_add_(0, bin_index.flatten(), units.flatten())

    def summary(self) -> dict[str, Any]:
        """Return plain numbers over all processes, in percent; None: a share of no pixels."""
        totals = distributed.all_reduce(torch.cat([self._counts, self._sums])).cpu()
        counts = totals[:-CONFIDENCE_BINS].view(self.classes, CONFIDENCE_BINS, 2, 2).double()
        class_counts, bin_counts = counts.sum(1), counts.sum((0, 2))
        above, pixels = class_counts[:, 1], bin_counts.sum(1)
        confidence = totals[-CONFIDENCE_BINS:] / FIXED_POINT_ONE / pixels
        accuracy = bin_counts[:, 1] / pixels
        gap = (pixels * (accuracy - confidence).abs()).nansum() / pixels.sum()
        return {
            "threshold": float(self.threshold),
            "kept": _percent(above.sum() / counts.sum()),
            "precision": _percent(above[:, 1].sum() / above.sum()),
            "class_kept": _percent(above.sum(1) / class_counts.sum((1, 2))),
            "class_precision": _percent(above[:, 1] / above.sum(1)),
            "ece": _percent(gap),
            "bin_pixels": _percent(pixels / pixels.sum()),
            "bin_confidence": _percent(confidence),
            "bin_accuracy": _percent(accuracy),
        }


def pseudo_label_sentence(summary: dict[str, Any], classes: Sequence[str]) -> str:
    """Return a summary as a sentence, with the mean over the classes that have pseudo-labels and
    the worst class: shares of pixels hide a rare class."""
    kept, ece = (
        "none" if summary[key] is None else f"{summary[key]:.2f} %" for key in ("kept", "ece")
    )
    pairs = zip(summary["class_precision"], classes, strict=True)
    precisions = [(value, name) for value, name in pairs if value is not None]
    right = ""
    if precisions:
        mean = sum(value for value, _ in precisions) / len(precisions)
        lowest, worst = min(precisions)
        of = "classes"
        if len(precisions) < len(classes):
            of = f"{len(precisions)} of {len(classes)} classes"
        detail = f"mean over {of} {mean:.2f} %, worst {worst} {lowest:.2f} %"
        if len(precisions) == 1:
            detail = f"{worst} only"
        right = f"; {summary['precision']:.2f} % of these are right ({detail})"
    return (
        f"{kept} of the pixels have a confidence of at least {summary['threshold']:.3f}{right}, "
        f"calibration error {ece}"
    )


def pseudo_label_scalars(
    summary: dict[str, Any], prefix: str, classes: Sequence[str]
) -> dict[str, float]:
    """Return the numbers of a summary by name, without None."""
    names = ("threshold", "kept", "precision", "ece")
    values = {f"{prefix}/{name}": summary[name] for name in names}
    for key in ("kept", "precision"):
        by_class = zip(classes, summary[f"class_{key}"], strict=True)
        values |= {f"{prefix}_{key}/{name}": value for name, value in by_class}
    return {name: value for name, value in values.items() if value is not None}


def _percent(shares: Tensor) -> Any:
    """Return a number or a list of numbers; None for 0/0."""
    percents = (100 * shares).tolist()
    if isinstance(percents, list):
        return [None if math.isnan(value) else value for value in percents]
    return None if math.isnan(percents) else percents
