"""UniMatch V2: pushing the limit of semi-supervised semantic segmentation (Yang et al., 2024).

An EMA teacher labels the weak view; two strong views learn from it, each with those feature
channels that the other one lost.
"""

import torch

from engine import Batch, Method, Step, main
from semi.ema import follow, frozen_copy
from semi.perturbation import complementary_dropout, draw_complementary
from semi.pseudo_labels import cutmix, label_partner, label_view, masked_cross_entropy, share
from util.config import Section, Share


class UniMatchV2(Method):
    strong_views = 2

    class Options(Section):
        ema_momentum: Share = 0.996
        """Of the teacher, once it has seen 250 steps; less before."""

    def __init__(self, model, config):
        super().__init__(model, config)
        self.model_ema = frozen_copy(model)

    def step(self, batch: Batch) -> Step:
        x, y = batch["labeled"]["image"], batch["labeled"]["mask"]
        u = batch["unlabeled"]
        (s1, s2), (box1, box2) = u["strong"], u["box"]
        own, partner = label_view(self.model_ema, u), label_partner(self.model_ema, u)

        z_x = self.model(x)
        features = self.model.features(torch.cat([s1, s2]))
        features = complementary_dropout(features, draw_complementary(features))
        z_s1, z_s2 = self.model.decode(features, x.shape[-2:]).chunk(2)

        mixed1, mixed2 = cutmix(own, partner, box1), cutmix(own, partner, box2)
        tau = self.config.conf_thresh

        loss_x = self.criterion(z_x, y)
        loss_s1 = masked_cross_entropy(z_s1, mixed1.label, mixed1.above(tau), mixed1.valid)
        loss_s2 = masked_cross_entropy(z_s2, mixed2.label, mixed2.above(tau), mixed2.valid)
        loss_s = (loss_s1 + loss_s2) / 2
        loss = (loss_x + loss_s) / 2
        return loss, {"x": loss_x, "s": loss_s, "mask_ratio": share(own.above(tau), own.valid)}

    def after_step(self, iteration: int) -> None:
        follow(self.model_ema, self.model, iteration, self.options.ema_momentum)

    def eval_models(self) -> dict[str, torch.nn.Module]:
        return {"model": self.model, "model_ema": self.model_ema}


if __name__ == "__main__":
    main(UniMatchV2)
