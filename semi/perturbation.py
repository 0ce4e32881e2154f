"""Perturbations of features: channels that a forward does without."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def with_dropped_channels(features: Sequence[Tensor]) -> list[Tensor]:
    """Each feature map followed, along the batch, by a copy with half of its channels dropped
    (UniMatch, section 3.2): `[2B, D, h, w]`."""
    return [torch.cat([f, F.dropout2d(f, 0.5)]) for f in features]


def draw_complementary(features: Sequence[Tensor]) -> list[Tensor]:
    """Factors `[B, D]` for the channels of the first views in features `[2B, D, h, w]` of
    `[s1; s2]`: 0 or 2 by a coin, but 1 for half of the images; the second views get 2 minus them.

    Feature maps of one width share them (complementary dropout, UniMatch V2).
    """
    images, device = len(features[0]) // 2, features[0].device
    whole = torch.randperm(images, device=device)[: images // 2]
    factors: dict[int, Tensor] = {}
    for channels in dict.fromkeys(f.shape[1] for f in features):
        factors[channels] = 2.0 * torch.randint(2, (images, channels), device=device)
        factors[channels][whole] = 1.0
    return [factors[f.shape[1]] for f in features]


def complementary_dropout(features: Sequence[Tensor], factors: Sequence[Tensor]) -> list[Tensor]:
    """Features `[2B, D, h, w]` of `[s1; s2]` of which each view of an image keeps the channels that
    the other one loses; `factors` are those of `draw_complementary`."""
    both = [torch.cat([first, 2 - first])[:, :, None, None] for first in factors]
    return [f * factor.to(f.dtype) for f, factor in zip(features, both, strict=True)]
