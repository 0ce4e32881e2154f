"""FixMatch for segmentation (Sohn et al., NeurIPS 2020; Yang et al., CVPR 2023, section 3.1).

What the network is sure of on a weak view, it should say of a strong view too.  With
`teacher: ema`, a moving average of the network says it (the FixMatch of UniMatch V2).
"""

from engine.start import check_command

if __name__ == "__main__":
    check_command("FixMatch")  # answers --help and mistakes before PyTorch loads

from typing import Literal

import torch
from torch import nn

from engine import Batch, Method, Step, main
from semi.ema import frozen_copy, update_ema
from semi.pseudo_labels import (
    cutmix,
    kept_ratio,
    label_partner,
    label_view,
    pseudo_label,
)
from util.config.schema import Section, Share


class FixMatch(Method):
    class Options(Section):
        teacher: Literal["self", "ema"] = "self"
        """What labels the weak view: the network itself or its moving average."""
        ema_momentum: Share = 0.996
        """Momentum of the moving average from step 250 on; before, it follows more closely."""

    def __init__(self, model, config):
        super().__init__(model, config)
        self.model_ema = frozen_copy(model) if self.options.teacher == "ema" else None

    def step(self, batch: Batch) -> Step:
        x, y, u = batch["labeled"]["image"], batch["labeled"]["mask"], batch["unlabeled"]
        (s,), (box,) = u["strong"], u["box"]
        partner = label_partner(self.model_ema or self.model, u)

        if self.model_ema is None:
            z_x, z_w = self.model(torch.cat([x, u["weak"]])).chunk(2)
            z_s = self.model(s)
            own = pseudo_label(z_w, u["ignore"])
        else:
            z_x, z_s = self.model(torch.cat([x, s])).chunk(2)
            own = label_view(self.model_ema, u)
        tau = self.config.conf_thresh

        loss_x = self.criterion(z_x, y)
        loss_s = self.consistency(z_s, cutmix(own, partner, box), tau)
        loss = (loss_x + loss_s) / 2
        return loss, {"x": loss_x, "s": loss_s, "mask_ratio": kept_ratio(own, tau)}

    def after_step(self, iteration: int) -> None:
        if self.model_ema is not None:
            update_ema(self.model_ema, self.model, iteration, self.options.ema_momentum)

    def eval_models(self) -> dict[str, nn.Module]:
        teacher = {} if self.model_ema is None else {"model_ema": self.model_ema}
        return {"model": self.model, **teacher}


if __name__ == "__main__":
    main(FixMatch)
