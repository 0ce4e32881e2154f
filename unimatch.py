"""UniMatch: revisiting weak-to-strong consistency (Yang et al., CVPR 2023).

FixMatch with two strong views of an image instead of one, and with a perturbation of the features
beside those of the image.
"""

import torch

from engine import Batch, Method, Step, main
from semi.perturbation import with_dropped_channels
from semi.pseudo_labels import cutmix, label_partner, masked_cross_entropy, pseudo_label, share


class UniMatch(Method):
    strong_views = 2

    def step(self, batch: Batch) -> Step:
        x, y = batch["labeled"]["image"], batch["labeled"]["mask"]
        u = batch["unlabeled"]
        w, (s1, s2), (box1, box2) = u["weak"], u["strong"], u["box"]
        partner = label_partner(self.model, u)

        features = self.model.features(torch.cat([x, w]))
        z = self.model.decode(with_dropped_channels(features), x.shape[-2:])
        z_x, z_w, _, z_fp = z.chunk(4)
        z_s1, z_s2 = self.model(torch.cat([s1, s2])).chunk(2)

        own = pseudo_label(z_w, u["ignore"])
        mixed1, mixed2 = cutmix(own, partner, box1), cutmix(own, partner, box2)
        tau = self.config.conf_thresh

        loss_x = self.criterion(z_x, y)
        loss_s1 = masked_cross_entropy(z_s1, mixed1.label, mixed1.above(tau), mixed1.valid)
        loss_s2 = masked_cross_entropy(z_s2, mixed2.label, mixed2.above(tau), mixed2.valid)
        loss_fp = masked_cross_entropy(z_fp, own.label, own.above(tau), own.valid)
        loss = (loss_x + 0.25 * loss_s1 + 0.25 * loss_s2 + 0.5 * loss_fp) / 2
        return loss, {
            "x": loss_x, "s": (loss_s1 + loss_s2) / 2, "fp": loss_fp,
            "mask_ratio": share(own.above(tau), own.valid),
        }  # fmt: skip


if __name__ == "__main__":
    main(UniMatch)
