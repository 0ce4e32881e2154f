"""Perturbations of features: dropped channels."""

import random
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def with_dropped_channels(features: Sequence[Tensor]) -> list[Tensor]:
    """Append to each feature map, along the batch, a copy with half of its channels dropped
    (UniMatch, section 3.2): `[2B, D, h, w]`."""
    return [torch.cat([f, F.dropout2d(f, 0.5)]) for f in features]


def draw_complementary(features: Sequence[Tensor]) -> list[Tensor]:
    """Draw channel factors `[B, D]` for the first views in features `[2B, D, h, w]` of `[s1; s2]`.

    Factors are 0 or 2 with equal probability, and 1 for half of the images (of an odd number, for
    half on average); the second views get 2 minus them. Feature maps of one width share factors
    (complementary dropout, UniMatch V2).
    """
    images, device = len(features[0]) // 2, features[0].device
    half = images // 2
    if images % 2:
        # Python's generator: reading a tensor's value would synchronise with the device.
        half += random.getrandbits(1)
    whole = torch.randperm(images, device=device)[:half]
    factors: dict[int, Tensor] = {}
    for channels in dict.fromkeys(f.shape[1] for f in features):
        factors[channels] = 2.0 * torch.randint(2, (images, channels), device=device)
        # Not factors[...][whole] = 1.0: it copies the number to the GPU and waits for it.
        factors[channels].index_fill_(0, whole, 1.0)
    return [factors[f.shape[1]] for f in features]


def complementary_dropout(features: Sequence[Tensor], factors: Sequence[Tensor]) -> list[Tensor]:
    """Drop complementary channels of the two views in features `[2B, D, h, w]` of `[s1; s2]`;
    `factors`: from `draw_complementary`."""
    both = [torch.cat([first, 2 - first])[:, :, None, None] for first in factors]
    return [f * factor.to(f.dtype) for f, factor in zip(features, both, strict=True)]
