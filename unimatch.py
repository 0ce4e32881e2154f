"""UniMatch: revisiting weak-to-strong consistency (Yang et al., CVPR 2023).

FixMatch with two strong views of an image instead of one, and a view with perturbed features. With
`teacher: ema`, a moving average of the network makes the pseudo-labels.
"""

from engine.start import check_command

if __name__ == "__main__":
    # handles --help and reports mistakes before importing PyTorch
    check_command("UniMatch")

from typing import NamedTuple

import torch
from torch import Tensor

from engine import Batch, StepOutput, TeacherMethod, main
from semi.perturbation import with_dropped_channels
from semi.pseudo_labels import Partner, PseudoLabel, cutmix, label_partner, mask_ratio, pseudo_label


class Logits(NamedTuple):
    """Logits `[B, C, H, W]` of a step."""

    x: Tensor
    """Labelled images."""
    w: Tensor
    """Weak views of the unlabelled images."""
    fp: Tensor
    """Weak views with perturbed features."""
    s: tuple[Tensor, Tensor]
    """The two strong views."""


class UniMatch(TeacherMethod):
    strong_views = 2

    def step(self, batch: Batch) -> StepOutput:
        u, tau = batch["unlabeled"], self.config.conf_thresh
        partner = label_partner(self.labeler, u)
        z = self.forward_views(batch)
        own = pseudo_label(self.label_logits(z.w, u), u["ignore"])
        loss_x, loss_s1, loss_s2, loss_fp = self.losses(z, batch, own, partner)
        loss = (loss_x + 0.25 * loss_s1 + 0.25 * loss_s2 + 0.5 * loss_fp) / 2
        return loss, {
            "x": loss_x, "s": (loss_s1 + loss_s2) / 2, "fp": loss_fp,
            "mask_ratio": mask_ratio(own, tau),
        }  # fmt: skip

    def forward_views(self, batch: Batch) -> Logits:
        """Return the logits of all views; the batch has as many labelled as unlabelled images.

        The decoder runs on the features and on a copy with half of the channels dropped. Of the
        copy, only the unlabelled images (`fp`) are used.
        """
        x, u = batch["labeled"]["image"], batch["unlabeled"]
        features = self.model.features(torch.cat([x, u["weak"]]))
        z = self.model.decode(with_dropped_channels(features), x.shape[-2:])
        z_x, z_w, _, z_fp = z.chunk(4)
        z_s1, z_s2 = self.model(torch.cat(u["strong"])).chunk(2)
        return Logits(z_x, z_w, z_fp, (z_s1, z_s2))

    def losses(
        self, z: Logits, batch: Batch, own: PseudoLabel, partner: Partner
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return loss_x (labelled), loss_s1, loss_s2 (strong views) and loss_fp (features)."""
        tau = self.config.conf_thresh
        views = zip(z.s, batch["unlabeled"]["box"], strict=True)
        loss_x = self.criterion(z.x, batch["labeled"]["mask"])
        loss_s1, loss_s2 = (
            self.consistency_loss(s, cutmix(own, partner, box), tau) for s, box in views
        )
        loss_fp = self.consistency_loss(z.fp, own, tau)
        return loss_x, loss_s1, loss_s2, loss_fp


if __name__ == "__main__":
    main(UniMatch)
