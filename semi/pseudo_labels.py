"""Consistency training: label unlabelled images, mix the labels, learn from them.

Symbols, as in the papers: `x`, `y` labelled images and masks; `u` unlabelled images; `w` weak view;
`s` CutMixed strong view; `fp` weak view with perturbed features; `z_w` logits of view w (and so
on); `tau` confidence threshold. `own`: pseudo-label of an image itself; `partner`: of its CutMix
partner; `box`: where a strong view shows the partner. Pixels in the padding, or without data, are
invalid: they get no loss and are not counted.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dataset.batch import Unlabeled, View
from model.network import eval_no_grad
from semi.criterion import dice_loss
from util.config.schema import Criterion
from util.precision import at_least_float32


class PseudoLabel(NamedTuple):
    """Pseudo-label of unlabelled images: `[B, H, W]` each."""

    label: Tensor
    """Most likely class (long)."""
    conf: Tensor
    """Probability of `label`."""
    valid: Tensor
    """False in the padding and where the image has no data."""

    def above(self, tau: float | Tensor) -> Tensor:
        """Return the valid pixels with confidence at least `tau`: bool `[B, H, W]`."""
        return (self.conf >= tau) & self.valid


Partner = PseudoLabel | Tensor
"""CutMix partners: their pseudo-labels, or their indices in the batch, `[B]`."""


def pseudo_label(logits: Tensor, ignore: Tensor) -> PseudoLabel:
    """Return the pseudo-label of `logits` `[B, C, H, W]` without gradient; `ignore` `[B, H, W]`."""
    conf, label = at_least_float32(logits.detach()).softmax(dim=1).max(dim=1)
    return PseudoLabel(label, conf, ~ignore)


def label_view(network: nn.Module, view: View) -> PseudoLabel:
    """Return the pseudo-label of a weak view by `network` in eval mode."""
    with eval_no_grad(network):
        return pseudo_label(network(view["weak"]), view["ignore"])


def label_partner(network: nn.Module, u: Unlabeled) -> Partner:
    """Return the pseudo-label of the CutMix partners by `network` in eval mode; for partners in the
    same batch, their indices."""
    return label_view(network, u["partner"]) if "partner" in u else u["partner_index"]


def label_images_and_partners(
    predict: Callable[[Tensor], Tensor], u: Unlabeled
) -> tuple[PseudoLabel, Partner]:
    """Return pseudo-labels of the images and of their CutMix partners, by one call of `predict`."""
    views = [u, u["partner"]] if "partner" in u else [u]
    logits = predict(torch.cat([view["weak"] for view in views])).chunk(len(views))
    own, *partner = (pseudo_label(z, view["ignore"]) for z, view in zip(logits, views, strict=True))
    return own, partner[0] if partner else u["partner_index"]


def cutmix(own: PseudoLabel, partner: Partner, box: Tensor) -> PseudoLabel:
    """Return the partner's label inside the `box` `[B, H, W]`, the image's own outside
    (Yun et al., 2019; French et al., 2020)."""
    if isinstance(partner, Tensor):
        partner = PseudoLabel(own.label[partner], own.conf[partner], own.valid[partner])
    return PseudoLabel(*(torch.where(box, p, o) for o, p in zip(own, partner, strict=True)))


def consistency_loss(logits: Tensor, target: PseudoLabel, tau: float | Tensor) -> Tensor:
    """Return the loss of weak-to-strong consistency, 0-d: cross-entropy of `logits` `[B, C, H, W]`
    with the confident pixels of a pseudo-label, per valid pixel."""
    loss = F.cross_entropy(logits, target.label, reduction="none")
    return mean_over_valid(loss, target.above(tau), target.valid)


def dice_consistency_loss(logits: Tensor, target: PseudoLabel, tau: float | Tensor) -> Tensor:
    """Return the Dice loss with the confident pixels of a pseudo-label, 0-d (UniMatch, medical)."""
    return dice_loss(logits, target.label, target.above(tau))


ConsistencyLoss = Callable[[Tensor, PseudoLabel, float | Tensor], Tensor]


def build_consistency_loss(criterion_config: Criterion) -> ConsistencyLoss:
    """Return the loss of pseudo-labels: Dice where labelled images use it, else cross-entropy."""
    uses_dice = criterion_config.name in ("dice", "ce_dice")
    return dice_consistency_loss if uses_dice else consistency_loss


def mean_over_valid(loss: Tensor, mask: Tensor, valid: Tensor) -> Tensor:
    """Return the sum of a pixelwise `loss` where `mask`, divided by the count of `valid` pixels."""
    return (loss * mask).sum() / valid.sum().clamp(min=1)


def mask_ratio(target: PseudoLabel, tau: float | Tensor) -> Tensor:
    """Return the share of confident pixels among the valid ones, 0-d."""
    return target.above(tau).sum() / target.valid.sum().clamp(min=1)
