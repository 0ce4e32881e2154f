"""The verbs that consistency methods share: label, mix, propagate, count.

Symbols as in the papers: `w` the weak view, `s` a (CutMixed) strong view, `tau` the confidence
threshold.  A view's padding is invalid: it is neither a target nor counted.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from util import dist


class PseudoLabel(NamedTuple):
    """What a network says of an unlabelled image, pixel by pixel: `[B, H, W]` each."""

    label: Tensor
    """Most likely class (long)."""
    conf: Tensor
    """Its probability."""
    valid: Tensor
    """False in the padding."""

    def above(self, tau: float | Tensor) -> Tensor:
        """The valid pixels that are confident enough: bool `[B, H, W]`."""
        return (self.conf >= tau) & self.valid


def pseudo_label(logits: Tensor, ignore: Tensor) -> PseudoLabel:
    """Label and confidence of `logits` `[B, C, H, W]`, without gradient; `ignore` `[B, H, W]`."""
    conf, label = logits.detach().float().softmax(dim=1).max(dim=1)
    return PseudoLabel(label, conf, ~ignore)


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients for a while."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def label_view(model: nn.Module, view: dict[str, Any]) -> PseudoLabel:
    """Eval-mode pseudo-label of the weak view in {weak, ignore}."""
    with frozen_statistics(model):
        return pseudo_label(model(view["weak"]), view["ignore"])


def label_partner(model: nn.Module, unlabeled: dict[str, Any]) -> PseudoLabel | Tensor:
    """Eval-mode pseudo-label of the CutMix partners; where these are in the same batch, their
    places `[B]`, by which `cutmix` finds the labels."""
    partner = unlabeled.get("partner")
    return unlabeled["mate"] if partner is None else label_view(model, partner)


def cutmix(own: PseudoLabel, partner: PseudoLabel | Tensor, box: Tensor) -> PseudoLabel:
    """The partner's label inside the `box` `[B, H, W]`, the image's own outside
    (Yun et al., 2019; French et al., 2020)."""
    if isinstance(partner, Tensor):
        partner = PseudoLabel(own.label[partner], own.conf[partner], own.valid[partner])
    return PseudoLabel(*(torch.where(box, p, o) for o, p in zip(own, partner, strict=True)))


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


def per_valid_pixel(loss: Tensor, keep: Tensor, valid: Tensor) -> Tensor:
    """Sum of a pixel-wise `loss` where `keep`, over the number of `valid` pixels."""
    return (loss * keep).sum() / valid.sum().clamp(min=1)


def masked_cross_entropy(logits: Tensor, label: Tensor, keep: Tensor, valid: Tensor) -> Tensor:
    """Cross-entropy with the pseudo-`label` where `keep`, per `valid` pixel."""
    return per_valid_pixel(F.cross_entropy(logits, label, reduction="none"), keep, valid)


def share(keep: Tensor, valid: Tensor) -> Tensor:
    """Share of the `valid` pixels that are kept."""
    return keep.sum() / valid.sum().clamp(min=1)


def mean_class_confidence(
    label: Tensor, conf: Tensor, valid: Tensor, num_classes: int, otherwise: Tensor
) -> Tensor:
    """Mean over the classes that occur of their highest confidence, over all processes
    (CorrMatch, section 3.4); `otherwise` where no pixel is valid.  Only the maxima travel."""
    highest = conf.new_zeros(num_classes)
    highest.scatter_reduce_(0, label.flatten(), (conf * valid).flatten(), "amax")
    dist.all_reduce(highest, "max")
    occurring = (highest > 0).sum()
    return torch.where(occurring > 0, highest.sum() / occurring.clamp(min=1), otherwise)


@torch.no_grad()
def propagate_regions(
    label: Tensor, confident: Tensor, regions: Tensor, tau: Tensor, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Region propagation (CorrMatch, section 3.3): a region whose confident pixels mostly agree
    takes their class as a whole and becomes reliable.

    One region of every image at a time, in order, since later regions see the labels that
    earlier ones wrote; batched over images, without host synchronisation.

    Args:
        label: pseudo-labels `[B, H, W]`.
        confident: pixels above the threshold `[B, H, W]`, bool.
        regions: `[B, K, H, W]`, bool.
        tau: threshold, 0-d, both for the confident share of a region and for the agreement.

    Returns:
        the new labels and the pixels that may be learnt from, `[B, H, W]`.
    """
    shape = label.shape
    label, confident, regions = label.flatten(1), confident.flatten(1), regions.flatten(2)
    reliable = confident.clone()
    support = regions & confident[:, None]  # S
    area = pixels_in(support)
    enough = area / pixels_in(regions) >= tau  # an empty region is 0/0: not enough
    total = torch.where(enough & (area > 0), area, torch.inf)  # no share of it is above tau
    counts = torch.zeros(len(label), num_classes, device=label.device)
    for k in range(regions.shape[1]):
        counts.zero_().scatter_add_(1, label, support[:, k].float())
        count, winner = counts.max(1, keepdim=True)  # of equally frequent ones the smallest
        take = (count / total[:, k, None] > tau) & regions[:, k]
        label = torch.where(take, winner, label)
        reliable |= take
    return label.view(shape), reliable.view(shape)


def pixels_in(masks: Tensor) -> Tensor:
    """How many pixels of each mask `[..., N]`, bool, are True, as float32: `[...]`.

    Summed in bytes as long as they hold the sum: on the CPU 20 times faster than as integers.
    """
    padded = F.pad(masks.view(torch.uint8), (0, -masks.shape[-1] % 128))
    return padded.unflatten(-1, (-1, 128)).sum(-1, dtype=torch.uint8).sum(-1, dtype=torch.float)
