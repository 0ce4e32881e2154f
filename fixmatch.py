"""FixMatch for segmentation (Sohn et al., NeurIPS 2020; Yang et al., CVPR 2023, section 3.1).

Confident predictions on a weak view are the labels of a strong view. With `teacher: ema`, a moving
average of the network makes these predictions (as published in the UniMatch V2 paper).
"""

from engine.start import check_command

if __name__ == "__main__":
    # handles --help and reports mistakes before importing PyTorch
    check_command("FixMatch")

import torch

from engine import Batch, StepOutput, TeacherMethod, main
from semi.pseudo_labels import cutmix, label_partner, label_view, mask_ratio, pseudo_label


class FixMatch(TeacherMethod):
    def step(self, batch: Batch) -> StepOutput:
        x, y, u = batch["labeled"]["image"], batch["labeled"]["mask"], batch["unlabeled"]
        (s,), (box,) = u["strong"], u["box"]
        partner = label_partner(self.labeler, u)

        if self.model_ema is None:
            z_x, z_w = self.model(torch.cat([x, u["weak"]])).chunk(2)
            z_s = self.model(s)
            own = pseudo_label(z_w, u["ignore"])
        else:
            z_x, z_s = self.model(torch.cat([x, s])).chunk(2)
            own = label_view(self.model_ema, u)
        tau = self.config.conf_thresh

        loss_x = self.criterion(z_x, y)
        loss_s = self.consistency_loss(z_s, cutmix(own, partner, box), tau)
        loss = (loss_x + loss_s) / 2
        return loss, {"x": loss_x, "s": loss_s, "mask_ratio": mask_ratio(own, tau)}


if __name__ == "__main__":
    main(FixMatch)
