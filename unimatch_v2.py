"""UniMatch V2: pushing the limit of semi-supervised semantic segmentation (Yang et al., 2024).

An EMA teacher labels the weak view; the student predicts these labels in two strong views, each
with the feature channels that the other one dropped. With `teacher: self`, as published for change
detection, the network makes the pseudo-labels itself.
"""

from engine.start import check_command

if __name__ == "__main__":
    # handles --help and reports mistakes before importing PyTorch
    check_command("UniMatchV2")

from typing import Literal

import torch
from torch import nn

from engine import Batch, StepOutput, TeacherMethod, main
from model.network import Network
from semi.ema import frozen_copy
from semi.perturbation import complementary_dropout, draw_complementary
from semi.pseudo_labels import cutmix, label_partner, label_view, mask_ratio
from util.config.schema import Config


class UniMatchV2(TeacherMethod):
    strong_views = 2

    class Options(TeacherMethod.Options):
        teacher: Literal["ema", "self"] = "ema"
        """Network that makes the pseudo-labels: `ema`, a moving average of the weights; `self`, the
        trained network (published for change detection). The average is validated in both cases."""

    def __init__(self, model: Network, config: Config):
        super().__init__(model, config)
        if self.model_ema is None:
            self.model_ema = frozen_copy(model)

    def step(self, batch: Batch) -> StepOutput:
        x, y, u = batch["labeled"]["image"], batch["labeled"]["mask"], batch["unlabeled"]
        own, partner = label_view(self.labeler, u), label_partner(self.labeler, u)

        z_x = self.model(x)
        features = self.model.features(torch.cat(u["strong"]))
        features = complementary_dropout(features, draw_complementary(features))
        z_s = self.model.decode(features, x.shape[-2:]).chunk(2)

        tau = self.config.conf_thresh
        views = zip(z_s, u["box"], strict=True)

        loss_x = self.criterion(z_x, y)
        loss_s1, loss_s2 = (
            self.consistency_loss(z, cutmix(own, partner, box), tau) for z, box in views
        )
        loss_s = (loss_s1 + loss_s2) / 2
        loss = (loss_x + loss_s) / 2
        return loss, {"x": loss_x, "s": loss_s, "mask_ratio": mask_ratio(own, tau)}

    @property
    def labeler(self) -> nn.Module:
        return super().labeler if self.options.teacher == "ema" else self.model


if __name__ == "__main__":
    main(UniMatchV2)
