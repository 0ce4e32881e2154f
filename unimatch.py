"""UniMatch: revisiting weak-to-strong consistency (Yang et al., CVPR 2023).

FixMatch with two strong views of an image instead of one, and with a perturbation of the features
beside those of the image.
"""

from engine.start import check_command

if __name__ == "__main__":
    check_command("UniMatch")  # answers --help and mistakes before PyTorch loads

import torch

from engine import Batch, Method, Step, main
from semi.perturbation import with_dropped_channels
from semi.pseudo_labels import cutmix, kept_ratio, label_partner, pseudo_label


class UniMatch(Method):
    strong_views = 2

    def step(self, batch: Batch) -> Step:
        x, y, u = batch["labeled"]["image"], batch["labeled"]["mask"], batch["unlabeled"]
        partner = label_partner(self.model, u)

        features = self.model.features(torch.cat([x, u["weak"]]))
        z = self.model.decode(with_dropped_channels(features), x.shape[-2:])
        z_x, z_w, _, z_fp = z.chunk(4)
        z_s = self.model(torch.cat(u["strong"])).chunk(2)

        own, tau = pseudo_label(z_w, u["ignore"]), self.config.conf_thresh
        views = zip(z_s, u["box"], strict=True)

        loss_x = self.criterion(z_x, y)
        loss_s1, loss_s2 = (self.consistency(z, cutmix(own, partner, box), tau) for z, box in views)
        loss_fp = self.consistency(z_fp, own, tau)
        loss = (loss_x + 0.25 * loss_s1 + 0.25 * loss_s2 + 0.5 * loss_fp) / 2
        return loss, {
            "x": loss_x, "s": (loss_s1 + loss_s2) / 2, "fp": loss_fp,
            "mask_ratio": kept_ratio(own, tau),
        }  # fmt: skip


if __name__ == "__main__":
    main(UniMatch)
