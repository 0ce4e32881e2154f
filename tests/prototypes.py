"""Example of CONTRIBUTING.md: a method with a projection head, class prototypes and EMA teacher.

`python -m tests.prototypes --config ... --save-path ...` trains it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine import Batch, Method, Panels, StepOutput, main
from semi.ema import frozen_copy, update_ema
from semi.panels import Labels
from semi.pseudo_labels import consistency_loss, label_view
from util import distributed
from util.config.types import Section, Share


class Prototypes(Method):
    class Options(Section):
        width: int = 4
        """Dimensions of the projected features."""
        momentum: Share = 0.9
        """Momentum of the prototypes and of the teacher."""

    def __init__(self, model, config):
        super().__init__(model, config)
        width = self.options.width
        self.head = nn.Conv2d(model.feature_channels[-1], width, 1)
        self.register_buffer("prototypes", torch.eye(config.num_classes, width))
        self.model_ema = frozen_copy(model)

    def step(self, batch: Batch) -> StepOutput:
        x, y = batch["labeled"]["image"], batch["labeled"]["mask"]
        own = label_view(self.model_ema, batch["unlabeled"])
        features = self.model.features(batch["unlabeled"]["strong"][0])
        z_s = self.model.decode(features, x.shape[-2:])
        projected = F.normalize(self.head(features[-1]), dim=1)
        near = F.interpolate(own.label[:, None].float(), projected.shape[-2:]).long()[:, 0]
        self.follow_prototypes(projected.detach(), near)

        loss_x = self.criterion(self.model(x), y)
        loss_s = consistency_loss(z_s, own, 0.0)
        similarity = torch.einsum("bdhw,cd->bchw", projected, self.prototypes)
        loss_p = F.cross_entropy(similarity, near)
        return (loss_x + loss_s + loss_p) / 3, {"x": loss_x, "s": loss_s, "p": loss_p}

    @torch.no_grad()
    def follow_prototypes(self, projected: Tensor, label: Tensor) -> None:
        """Move each prototype towards the mean of its class's pixels on all processes."""
        members = F.one_hot(label, len(self.prototypes)).permute(0, 3, 1, 2).to(projected.dtype)
        sums = distributed.all_reduce(torch.einsum("bdhw,bchw->cd", projected, members))
        counts = distributed.all_reduce(members.sum((0, 2, 3)))
        self.prototypes.lerp_(sums / counts.clamp(min=1)[:, None], 1 - self.options.momentum)

    def after_step(self, iteration: int) -> None:
        update_ema(self.model_ema, self.model, iteration, self.options.momentum)

    def eval_models(self) -> dict[str, nn.Module]:
        return {"model": self.model, "model_ema": self.model_ema}

    @property
    def threshold(self) -> float:
        return 0.0

    def panels(self, batch: Batch) -> Panels:
        features = self.model.features(batch["unlabeled"]["weak"])[-1]
        projected = F.normalize(self.head(features), dim=1)
        near = torch.einsum("bdhw,cd->bchw", projected, self.prototypes).argmax(1)
        return {**super().panels(batch), "nearest prototype": Labels(near)}


if __name__ == "__main__":
    main(Prototypes)
