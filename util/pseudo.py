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


def label_partner(model: nn.Module, unlabeled: dict[str, Any]) -> PseudoLabel | None:
    """Eval-mode pseudo-label of the CutMix partners' weak views.

    None with `cutmix_partner: batch`, where `cutmix` takes the images' own labels, rolled.
    """
    if "partner" not in unlabeled:
        return None
    with frozen_statistics(model):
        logits = model(unlabeled["partner"]["weak"])
    return pseudo_label(logits, unlabeled["partner"]["ignore"])


def cutmix(own: PseudoLabel, partner: PseudoLabel | None, box: Tensor) -> PseudoLabel:
    """The partner's label inside the `box` `[B, H, W]`, the image's own outside
    (Yun et al., 2019; French et al., 2020)."""
    if partner is None:
        partner = PseudoLabel(*(x.roll(1, dims=0) for x in own))
    return PseudoLabel(*(torch.where(box, p, o) for o, p in zip(own, partner, strict=True)))


def with_dropped_channels(features: Sequence[Tensor]) -> list[Tensor]:
    """Each feature map followed, along the batch, by a copy with half of its channels dropped
    (UniMatch, section 3.2): `[2B, D, h, w]`."""
    return [torch.cat([f, F.dropout2d(f, 0.5)]) for f in features]


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
    area, size = support.sum(2), regions.sum(2)
    enough = (area > 0) & (area / size >= tau)
    counts = label.new_empty(len(label), num_classes)
    smallest_first = torch.arange(num_classes - 1, -1, -1, device=label.device)
    for k in range(regions.shape[1]):
        counts.zero_().scatter_add_(1, label, support[:, k].long())
        # Distinct keys, so that of equally frequent classes the smallest wins on any device.
        key = (counts * num_classes + smallest_first).amax(1)
        count, winner = key // num_classes, num_classes - 1 - key % num_classes
        take = (enough[:, k] & (count / area[:, k] > tau))[:, None] & regions[:, k]
        label = torch.where(take, winner[:, None], label)
        reliable |= take
    return label.view(shape), reliable.view(shape)
