"""RankMatch: exploring the better consistency regularization (Mai et al., CVPR 2024).

UniMatch with a ranking loss: for each pixel, a weak and a strong view should rank reference pixels
by similarity in the same order. With `teacher: ema`, labels and features of the weak view come
from a moving average of the network.
"""

from engine.start import check_command

if __name__ == "__main__":
    # handles --help and reports mistakes before importing PyTorch
    check_command("RankMatch")

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from dataset.batch import Unlabeled, View
from engine import Batch, Panels, StepOutput, main
from model.network import eval_no_grad
from semi.panels import Marks, Photo
from semi.perturbation import with_dropped_channels
from semi.pseudo_labels import Partner, PseudoLabel, mask_ratio, pseudo_label
from semi.ranking import choose_references, cutmix_features, ranking_loss
from unimatch import Logits, UniMatch


class RankMatch(UniMatch):
    class Options(UniMatch.Options):
        rank_weight: Annotated[float, Field(ge=0)] = 0.1
        """Weight of the ranking loss."""
        references: Annotated[int, Field(ge=4)] = 64
        """Reference pixels per image."""

    def step(self, batch: Batch) -> StepOutput:
        x, u, tau = batch["labeled"]["image"], batch["unlabeled"], self.config.conf_thresh
        model, size = self.model, x.shape[-2:]
        partner, f_partner = self.partner_label_and_features(u)

        context = model.context(with_dropped_channels(model.features(torch.cat([x, u["weak"]]))))
        # chunks: x, w, and both with dropped channels
        z_x, z_w, _, z_fp = model.classify(context, size).chunk(4)
        context_s = model.context(model.features(torch.cat(u["strong"])))
        z_s1, z_s2 = model.classify(context_s, size).chunk(2)
        if self.model_ema is None:
            own, f_w = pseudo_label(z_w, u["ignore"]), context[-1].detach().chunk(4)[1]
        else:
            own, f_w = self.label_and_features(u)
        views = zip(context_s[-1].chunk(2), u["box"], strict=True)

        z = Logits(z_x, z_w, z_fp, (z_s1, z_s2))
        loss_x, loss_s1, loss_s2, loss_fp = self.losses(z, batch, own, partner)
        rank1, rank2 = (
            ranking_loss(cutmix_features(f_w, f_partner, box), f, self.options.references)
            for f, box in views
        )
        loss_rank = (rank1 + rank2) / 2
        loss = (loss_x + 0.25 * loss_s1 + 0.25 * loss_s2 + 0.5 * loss_fp) / 2
        loss = loss + self.options.rank_weight * loss_rank
        return loss, {
            "x": loss_x, "s": (loss_s1 + loss_s2) / 2, "fp": loss_fp, "rank": loss_rank,
            "mask_ratio": mask_ratio(own, tau),
        }  # fmt: skip

    def partner_label_and_features(self, u: Unlabeled) -> tuple[Partner, Tensor]:
        """Return label and deepest features of the CutMix partners, in eval mode; for partners in
        the same batch, their indices for both."""
        if "partner" not in u:
            return u["partner_index"], u["partner_index"]
        return self.label_and_features(u["partner"])

    def label_and_features(self, view: View) -> tuple[PseudoLabel, Tensor]:
        """Return label and deepest features of a weak view by the labeler, in eval mode."""
        model = self.model_ema or self.model
        with eval_no_grad(model):
            context = model.context(model.features(view["weak"]))
            logits = model.classify(context, view["weak"].shape[-2:])
        return pseudo_label(logits, view["ignore"]), context[-1]

    def panels(self, batch: Batch) -> Panels:
        panels, u = super().panels(batch), batch["unlabeled"]
        _, f_w = self.label_and_features(u)
        _, f_partner = self.partner_label_and_features(u)
        for number, (s, box) in enumerate(zip(u["strong"], u["box"], strict=True), start=1):
            mixed = cutmix_features(f_w, f_partner, box)
            marks = Marks(choose_references(mixed, self.options.references), mixed.shape[-2:])
            panels[f"reference pixels {number}"] = Photo(s, box, marks)
        return panels


if __name__ == "__main__":
    main(RankMatch)
