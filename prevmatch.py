"""PrevMatch: revisiting and maximizing temporal knowledge (Shin et al., 2024).

UniMatch, with further pseudo-labels by previous models: the best models so far are kept, and at
every step a random ensemble of them labels the same images.
"""

from engine.start import check_command

if __name__ == "__main__":
    # handles --help and reports mistakes before importing PyTorch
    check_command("PrevMatch")

from collections import deque
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from dataset.batch import Unlabeled
from engine import Batch, Panels, StepOutput, main
from model.network import Network
from semi.panels import Heat, Labels
from semi.pseudo_labels import (
    Partner,
    PseudoLabel,
    cutmix,
    label_images_and_partners,
    label_partner,
    label_view,
    mask_ratio,
    pseudo_label,
)
from semi.snapshots import Snapshot, ensemble_logits, snapshot
from unimatch import UniMatch
from util.config.schema import Config
from util.config.types import Natural, Positive, Section, Share


class Previous(Section):
    conf_thresh: Share = 0.9
    """Confidence threshold for labels of previous models, if `confidence` is pixelwise."""
    confidence: Literal["pixelwise", "pixelavg", "imageavg"] = "pixelwise"
    """Weight of the labels of previous models. `pixelwise`: 1 above the threshold, else 0;
    `imageavg`: the mean confidence of the image, for all its pixels; `pixelavg`: as published for
    Cityscapes, the loss of the whole batch, padding included, times the sum of the images' mean
    confidences. The last two always use cross-entropy."""
    store: Literal["cpu", "gpu"] = "cpu"
    """Where previous models are kept: `cpu`, in host memory; `gpu`, in GPU memory."""


class PrevMatch(UniMatch):
    class Options(UniMatch.Options):
        list_max_len: Positive = 8
        """Largest number of previous models that are kept; a new one replaces the oldest."""
        model_num: Positive = 3
        """Largest number of previous models that label a batch."""
        random_select: bool = True
        """Draw the number of previous models for each batch, from 1 to `model_num`; false: always
        `model_num`."""
        base_only_epoch: Natural = 0
        """First epoch, counted from 1, whose model may be kept; models of earlier epochs are poor
        teachers."""
        prev: Annotated[Previous, Field(default_factory=Previous)]

    def __init__(self, model: Network, config: Config):
        super().__init__(model, config)
        self.previous: deque[Snapshot] = deque(maxlen=self.options.list_max_len)
        self.epoch = 0

    def step(self, batch: Batch) -> StepOutput:
        u, tau = batch["unlabeled"], self.config.conf_thresh
        partner = label_partner(self.labeler, u)
        z = self.forward_views(batch)
        own = pseudo_label(self.label_logits(z.w, u), u["ignore"])
        loss_x, loss_s1, loss_s2, loss_fp = self.losses(z, batch, own, partner)
        loss_u = 0.25 * loss_s1 + 0.25 * loss_s2 + 0.5 * loss_fp

        weight, loss_prev = 0.0, torch.zeros_like(loss_x)
        if self.previous:
            prev, prev_partner = self.label_by_previous(u)
            views = zip(z.s, u["box"], strict=True)
            prev1, prev2 = (self.previous_loss(s, cutmix(prev, prev_partner, b)) for s, b in views)
            loss_prev = 0.25 * prev1 + 0.25 * prev2 + 0.5 * self.previous_loss(z.fp, prev)
            # Up to 1 in the first half of the epochs, down to 0 in the second.
            weight = 1 - abs(2 * self.epoch / self.config.epochs - 1)
        loss = (loss_x + loss_u + weight * loss_prev) / (2 + weight)
        return loss, {
            "x": loss_x, "s": (loss_s1 + loss_s2) / 2, "fp": loss_fp, "prev": loss_prev,
            "mask_ratio": mask_ratio(own, tau),
        }  # fmt: skip

    def label_by_previous(self, u: Unlabeled) -> tuple[PseudoLabel, Partner]:
        """Return pseudo-labels of images and partners by a random ensemble of previous models."""
        count = self.options.model_num
        if self.options.random_select:
            count = np.random.randint(count) + 1
        chosen = np.random.choice(len(self.previous), min(count, len(self.previous)), replace=False)
        weights = np.random.dirichlet(np.ones(len(chosen)))
        members = [(self.previous[i], float(p)) for i, p in zip(chosen, weights, strict=True)]
        return label_images_and_partners(partial(ensemble_logits, self.model, members), u)

    def previous_loss(self, logits: Tensor, prev: PseudoLabel) -> Tensor:
        """Return the loss of labels by previous models, weighted as `prev.confidence` says."""
        mode = self.options.prev.confidence
        if mode == "pixelwise":
            return self.consistency_loss(logits, prev, self.options.prev.conf_thresh)
        loss = F.cross_entropy(logits, prev.label, reduction="none")
        total = loss.sum() if mode == "pixelavg" else (loss * prev.valid).sum((1, 2))
        valid = prev.valid.sum((1, 2))
        confidence = (prev.conf * prev.valid).sum((1, 2)) / valid.clamp(min=1)
        return (confidence * total).sum() / valid.sum().clamp(min=1)

    def after_epoch(self, epoch: int, is_best: bool) -> None:
        self.epoch = epoch + 1
        if is_best and self.epoch >= self.options.base_only_epoch:
            self.keep_snapshot(self.labeler.state_dict())

    def keep_snapshot(self, state: Snapshot) -> None:
        device = next(self.model.parameters()).device
        self.previous.append(snapshot(state, device, on_gpu=self.options.prev.store == "gpu"))

    def get_extra_state(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "previous": list(self.previous)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.previous.clear()
        for previous in state["previous"]:
            self.keep_snapshot(previous)

    def panels(self, batch: Batch) -> Panels:
        panels, u = super().panels(batch), batch["unlabeled"]
        if self.previous:
            own, (prev, _) = label_view(self.labeler, u), self.label_by_previous(u)
            panels["previous models"] = Labels(prev.label, prev.valid)
            panels["their confidence"] = Heat(prev.conf * prev.valid)
            panels["where they differ"] = Labels(prev.label, prev.valid & (prev.label != own.label))
        return panels


if __name__ == "__main__":
    main(PrevMatch)
