"""How sure a network is of a pixel: measures of its class probabilities `[C, H, W]`, in [0, 1]."""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def confidence(probabilities: Tensor) -> Tensor:
    """`[H, W]`: the probability of the class that is predicted."""
    return probabilities.amax(0)


def entropy(probabilities: Tensor) -> Tensor:
    """`[H, W]`: Shannon's entropy, of what it is where all classes are equally probable."""
    return torch.special.entr(probabilities).sum(0) / math.log(len(probabilities))


def margin(probabilities: Tensor) -> Tensor:
    """`[H, W]`: 1 less what the first class is ahead of the second (Joshi et al., CVPR 2009)."""
    first, second = probabilities.topk(2, dim=0).values
    return 1 - (first - second)


def least_confidence(probabilities: Tensor) -> Tensor:
    """`[H, W]`: the probability that the predicted class is not the true one."""
    return 1 - confidence(probabilities)


ACQUISITIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "entropy": entropy,
    "margin": margin,
    "least_confidence": least_confidence,
}
"""Uncertainty sampling: what may be labelled next is what scores highest (Settles, Active Learning
Literature Survey, 2009, section 3.1)."""
