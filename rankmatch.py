"""RankMatch: exploring the better consistency regularization (Mai et al., CVPR 2024).

UniMatch, and beyond what each pixel is, how it relates to others: a weak and a strong view should
rank the same reference pixels in the same order of resemblance.
"""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from engine import Batch, Method, Step, main
from semi.perturbation import with_dropped_channels
from semi.pseudo_labels import (
    PseudoLabel,
    cutmix,
    frozen_statistics,
    masked_cross_entropy,
    pseudo_label,
    share,
)
from semi.ranking import cutmix_features, ranking_loss
from util.config import Section


class RankMatch(Method):
    strong_views = 2

    class Options(Section):
        rank_weight: Annotated[float, Field(ge=0)] = 0.1
        """Weight of the ranking loss."""
        references: Annotated[int, Field(ge=4)] = 64
        """Reference pixels per image."""

    def step(self, batch: Batch) -> Step:
        x, y = batch["labeled"]["image"], batch["labeled"]["mask"]
        u = batch["unlabeled"]
        w, (s1, s2), (box1, box2) = u["weak"], u["strong"], u["box"]
        model, size = self.model, x.shape[-2:]
        partner, f_partner = self.look_at_partner(u)

        context = model.context(with_dropped_channels(model.features(torch.cat([x, w]))))
        z_x, z_w, _, z_fp = model.classify(context, size).chunk(4)
        _, f_w, _, _ = context[-1].detach().chunk(4)
        context = model.context(model.features(torch.cat([s1, s2])))
        z_s1, z_s2 = model.classify(context, size).chunk(2)
        f_s1, f_s2 = context[-1].chunk(2)

        own = pseudo_label(z_w, u["ignore"])
        mixed1, mixed2 = cutmix(own, partner, box1), cutmix(own, partner, box2)
        tau = self.config.conf_thresh

        loss_x = self.criterion(z_x, y)
        loss_s1 = masked_cross_entropy(z_s1, mixed1.label, mixed1.above(tau), mixed1.valid)
        loss_s2 = masked_cross_entropy(z_s2, mixed2.label, mixed2.above(tau), mixed2.valid)
        loss_fp = masked_cross_entropy(z_fp, own.label, own.above(tau), own.valid)
        count = self.options.references
        rank1 = ranking_loss(cutmix_features(f_w, f_partner, box1), f_s1, count)
        rank2 = ranking_loss(cutmix_features(f_w, f_partner, box2), f_s2, count)
        loss_rank = (rank1 + rank2) / 2
        loss = (loss_x + 0.25 * loss_s1 + 0.25 * loss_s2 + 0.5 * loss_fp) / 2
        loss = loss + self.options.rank_weight * loss_rank
        return loss, {
            "x": loss_x, "s": (loss_s1 + loss_s2) / 2, "fp": loss_fp, "rank": loss_rank,
            "mask_ratio": share(own.above(tau), own.valid),
        }  # fmt: skip

    def look_at_partner(self, u: dict[str, Any]) -> tuple[PseudoLabel | Tensor, Tensor]:
        """Label and deepest features of the CutMix partners, in eval mode; where these are in
        the same batch, their places twice."""
        if "partner" not in u:
            return u["mate"], u["mate"]
        with frozen_statistics(self.model):
            images = u["partner"]["weak"]
            context = self.model.context(self.model.features(images))
            logits = self.model.classify(context, images.shape[-2:])
        return pseudo_label(logits, u["partner"]["ignore"]), context[-1]


if __name__ == "__main__":
    main(RankMatch)
