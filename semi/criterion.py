"""Supervised losses of `logits` `[B, C, H, W]` for classes `target` `[B, H, W]`, 255 = ignore."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from util.config.schema import Criterion
from util.config.types import IGNORE
from util.precision import at_least_float32

SMOOTH = 1e-5
"""Added to both sums of Dice, against 0/0."""


class CrossEntropy(nn.Module):
    """Mean cross-entropy over labelled pixels, weighted by class if there are weights; 0 for a
    batch without labelled pixels."""

    weights: Tensor | None

    def __init__(self, weights: Sequence[float] | None = None):
        super().__init__()
        weight_tensor = None if weights is None else torch.tensor(weights)
        self.register_buffer("weights", weight_tensor, persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        loss = pixelwise_cross_entropy(logits, target)
        return self.masked_mean(loss, target, target != IGNORE)

    def masked_mean(self, loss: Tensor, target: Tensor, keep: Tensor) -> Tensor:
        """Return the (weighted) mean of a pixelwise `loss` where `keep`; 0 if no pixel is kept."""
        weight = keep if self.weights is None else self.weights[target.where(keep, 0)] * keep
        total = weight.sum()
        return (loss * weight).sum() / torch.where(total > 0, total, 1)


def pixelwise_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy `[B, H, W]`, 0 at ignored pixels."""
    return F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")


class OhemCrossEntropy(CrossEntropy):
    """Cross-entropy over the hard pixels: true-class probability at most `thresh`, or among the
    `min_kept * B` hardest pixels of the batch (Shrivastava et al., 2016, per pixel)."""

    def __init__(self, thresh: float, min_kept: int, weights: Sequence[float] | None = None):
        super().__init__(weights)
        self.thresh, self.min_kept = thresh, min_kept

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        loss = pixelwise_cross_entropy(logits, target)
        valid = target != IGNORE
        with torch.no_grad():
            probability = torch.exp(-loss)  # of the true class; 1 where ignored
            min_kept = self.min_kept * len(target)
            kth = probability.flatten().kthvalue(min(min_kept, target.numel())).values
            hard = probability <= kth.clamp(min=self.thresh)
            keep = valid & (hard | (valid.sum() < min_kept))
        return self.masked_mean(loss, target, keep)


def dice_loss(logits: Tensor, label: Tensor, keep: Tensor) -> Tensor:
    """Return 1 - Dice of the probabilities, averaged over all classes, background included.

    Sums run over the kept pixels of the whole batch, with squares in the denominator (Milletari et
    al., 2016). 0 where no pixel is kept.

    `logits` `[B, C, H, W]`, `label` and `keep` (bool) `[B, H, W]`.
    """
    p = at_least_float32(logits).softmax(dim=1) * keep[:, None]
    classes = torch.arange(p.shape[1], device=p.device)[:, None, None]
    y = (label[:, None] == classes) & keep[:, None]
    overlap, squares, pixels = (x.sum((0, 2, 3)) for x in (p * y, p.square(), y))
    return 1 - ((2 * overlap + SMOOTH) / (squares + pixels + SMOOTH)).mean()


class Dice(nn.Module):
    """Dice loss of labelled pixels."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return dice_loss(logits, target, target != IGNORE)


class CrossEntropyAndDice(nn.Module):
    """Mean of cross-entropy and Dice loss."""

    def __init__(self, weights: Sequence[float] | None):
        super().__init__()
        self.ce, self.dice = CrossEntropy(weights), Dice()

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return (self.ce(logits, target) + self.dice(logits, target)) / 2


def build_criterion(criterion_config: Criterion) -> nn.Module:
    """Build the loss of labelled images; a rule for class weights is resolved to numbers before."""
    weights = criterion_config.class_weights
    assert not isinstance(weights, str)
    if criterion_config.name == "ohem":
        return OhemCrossEntropy(criterion_config.thresh, criterion_config.min_kept, weights)
    if criterion_config.name == "dice":
        return Dice()
    if criterion_config.name == "ce_dice":
        return CrossEntropyAndDice(weights)
    assert criterion_config.name == "ce"
    return CrossEntropy(weights)
