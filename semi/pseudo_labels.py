"""What consistency methods share: label unlabelled images, mix the labels, learn from them.

Symbols as in the papers: `w` the weak view, `s` a (CutMixed) strong view, `tau` the confidence
threshold.  A view's padding is invalid: it is neither a target nor counted.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dataset.batch import Unlabeled, View
from semi.criterion import dice_loss
from util.config.schema import Criterion
from util.precision import at_least_float32


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


Partner = PseudoLabel | Tensor
"""What is known of CutMix partners: their labels, or where in the batch they are, `[B]`."""


def pseudo_label(logits: Tensor, ignore: Tensor) -> PseudoLabel:
    """Label and confidence of `logits` `[B, C, H, W]`, without gradient; `ignore` `[B, H, W]`."""
    conf, label = at_least_float32(logits.detach()).softmax(dim=1).max(dim=1)
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
        # Under autocast torch (2.6) would take the weights that were cast here, which know of no
        # gradient, for the forward that learns.
        torch.clear_autocast_cache()


def label_view(model: nn.Module, view: View) -> PseudoLabel:
    """Pseudo-label of a weak view by `model` in eval mode."""
    with frozen_statistics(model):
        return pseudo_label(model(view["weak"]), view["ignore"])


def label_partner(model: nn.Module, u: Unlabeled) -> Partner:
    """Pseudo-label of the CutMix partners by `model` in eval mode; of partners in the same batch,
    which are labelled already, where they are."""
    return label_view(model, u["partner"]) if "partner" in u else u["partner_index"]


def label_with_partner(
    predict: Callable[[Tensor], Tensor], u: Unlabeled
) -> tuple[PseudoLabel, Partner]:
    """Pseudo-labels of the images and of their CutMix partners, by one call of `predict`."""
    views = [u, u["partner"]] if "partner" in u else [u]
    logits = predict(torch.cat([view["weak"] for view in views])).chunk(len(views))
    own, *partner = (pseudo_label(z, view["ignore"]) for z, view in zip(logits, views, strict=True))
    return own, partner[0] if partner else u["partner_index"]


def cutmix(own: PseudoLabel, partner: Partner, box: Tensor) -> PseudoLabel:
    """The partner's label inside the `box` `[B, H, W]`, the image's own outside
    (Yun et al., 2019; French et al., 2020)."""
    if isinstance(partner, Tensor):
        partner = PseudoLabel(own.label[partner], own.conf[partner], own.valid[partner])
    return PseudoLabel(*(torch.where(box, p, o) for o, p in zip(own, partner, strict=True)))


def consistency(logits: Tensor, target: PseudoLabel, tau: float | Tensor) -> Tensor:
    """Cross-entropy of `logits` `[B, C, H, W]` with a pseudo-label where that is confident, per
    valid pixel, 0-d: the loss of weak-to-strong consistency."""
    return masked_cross_entropy(logits, target.label, target.above(tau), target.valid)


def dice_consistency(logits: Tensor, target: PseudoLabel, tau: float | Tensor) -> Tensor:
    """Dice loss with a pseudo-label where that is confident, however many pixels that are, 0-d
    (UniMatch, medical)."""
    return dice_loss(logits, target.label, target.above(tau))


Consistency = Callable[[Tensor, PseudoLabel, float | Tensor], Tensor]


def build_consistency(options: Criterion) -> Consistency:
    """How pseudo-labels are learnt: by Dice where labels are, too, else by cross-entropy."""
    return dice_consistency if options.name in ("dice", "ce_dice") else consistency


def masked_cross_entropy(logits: Tensor, label: Tensor, mask: Tensor, valid: Tensor) -> Tensor:
    """Cross-entropy with the pseudo-`label` where `mask`, per `valid` pixel."""
    return per_valid_pixel(F.cross_entropy(logits, label, reduction="none"), mask, valid)


def per_valid_pixel(loss: Tensor, mask: Tensor, valid: Tensor) -> Tensor:
    """Sum of a pixel-wise `loss` where `mask`, over the number of `valid` pixels."""
    return (loss * mask).sum() / valid.sum().clamp(min=1)


def kept_ratio(target: PseudoLabel, tau: float | Tensor) -> Tensor:
    """Share of the valid pixels whose label is confident, 0-d."""
    return target.above(tau).sum() / target.valid.sum().clamp(min=1)
