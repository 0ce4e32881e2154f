"""Measures of confidence and uncertainty in [0, 1] of class probabilities `[C, H, W]`."""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def confidence(probabilities: Tensor) -> Tensor:
    """Return the probability of the predicted class, `[H, W]`."""
    return probabilities.amax(0)


def entropy(probabilities: Tensor) -> Tensor:
    """Return Shannon's entropy divided by its maximum, `[H, W]`."""
    return torch.special.entr(probabilities).sum(0) / math.log(len(probabilities))


def margin(probabilities: Tensor) -> Tensor:
    """Return 1 minus the margin between the two most probable classes, `[H, W]` (Joshi et al., CVPR
    2009)."""
    first, second = probabilities.topk(2, dim=0).values
    return 1 - (first - second)


def least_confidence(probabilities: Tensor) -> Tensor:
    """Return 1 minus the confidence, `[H, W]`."""
    return 1 - confidence(probabilities)


ACQUISITIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "entropy": entropy,
    "margin": margin,
    "least_confidence": least_confidence,
}
"""Uncertainty sampling: images with the highest score are labelled next (Settles, Active Learning
Literature Survey, 2009, section 3.1)."""
