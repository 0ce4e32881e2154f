"""FixMatch for segmentation (Sohn et al., NeurIPS 2020; Yang et al., CVPR 2023, section 3.1).

What the network is sure of on a weak view, it should say of a strong view too.
"""

import torch

from util.engine import Batch, Method, Step, main
from util.pseudo import cutmix, label_partner, masked_cross_entropy, pseudo_label, share


class FixMatch(Method):
    def step(self, batch: Batch) -> Step:
        x, y = batch["labeled"]["image"], batch["labeled"]["mask"]
        u = batch["unlabeled"]
        w, (s,), (box,) = u["weak"], u["strong"], u["box"]
        partner = label_partner(self.model, u)

        z_x, z_w = self.model(torch.cat([x, w])).chunk(2)
        z_s = self.model(s)

        own = pseudo_label(z_w, u["ignore"])
        mixed = cutmix(own, partner, box)
        tau = self.config.conf_thresh

        loss_x = self.criterion(z_x, y)
        loss_s = masked_cross_entropy(z_s, mixed.label, mixed.above(tau), mixed.valid)
        loss = (loss_x + loss_s) / 2
        return loss, {"x": loss_x, "s": loss_s, "mask_ratio": share(own.above(tau), own.valid)}


if __name__ == "__main__":
    main(FixMatch)
