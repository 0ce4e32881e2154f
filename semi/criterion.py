"""Supervised losses.  255 is the ignore label everywhere."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from util.config import IGNORE, Criterion


def mean_over(loss: Tensor, keep: Tensor) -> Tensor:
    """Mean of `loss` where `keep`; 0, not NaN, where there is nothing to keep."""
    return (loss * keep).sum() / keep.sum().clamp(min=1)


class CrossEntropy(nn.Module):
    """Mean cross-entropy over labelled pixels; 0 where a batch has none."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """`logits` `[B, C, H, W]`, `target` `[B, H, W]` with 255 = ignore."""
        loss = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
        return mean_over(loss, target != IGNORE)


class OhemCrossEntropy(nn.Module):
    """Cross-entropy over the hard pixels: true-class probability at most `thresh`, or among the
    `min_kept` per image that are hardest (Shrivastava et al., 2016, per pixel)."""

    def __init__(self, thresh: float, min_kept: int):
        super().__init__()
        self.thresh, self.min_kept = thresh, min_kept

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """`logits` `[B, C, H, W]`, `target` `[B, H, W]` with 255 = ignore."""
        loss = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
        valid = target != IGNORE
        with torch.no_grad():
            probability = torch.exp(-loss)  # of the true class; 1 where ignored
            min_kept = self.min_kept * len(target)
            kth = probability.flatten().kthvalue(min(min_kept, target.numel())).values
            hard = probability <= kth.clamp(min=self.thresh)
            keep = valid & (hard | (valid.sum() < min_kept))
        return mean_over(loss, keep)


def build_criterion(options: Criterion) -> nn.Module:
    if options.name == "ohem":
        return OhemCrossEntropy(options.thresh, options.min_kept)
    return CrossEntropy()
