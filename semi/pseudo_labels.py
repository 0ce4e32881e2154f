"""The verbs that consistency methods share: label, mix, propagate, count.

Symbols as in the papers: `w` the weak view, `s` a (CutMixed) strong view, `tau` the confidence
threshold.  A view's padding is invalid: it is neither a target nor counted.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


def per_valid_pixel(loss: Tensor, keep: Tensor, valid: Tensor) -> Tensor:
    """Sum of a pixel-wise `loss` where `keep`, over the number of `valid` pixels."""
    return (loss * keep).sum() / valid.sum().clamp(min=1)


def masked_cross_entropy(logits: Tensor, label: Tensor, keep: Tensor, valid: Tensor) -> Tensor:
    """Cross-entropy with the pseudo-`label` where `keep`, per `valid` pixel."""
    return per_valid_pixel(F.cross_entropy(logits, label, reduction="none"), keep, valid)


def share(keep: Tensor, valid: Tensor) -> Tensor:
    """Share of the `valid` pixels that are kept."""
    return keep.sum() / valid.sum().clamp(min=1)
