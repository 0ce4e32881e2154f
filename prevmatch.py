"""PrevMatch: revisiting and maximizing temporal knowledge (Shin et al., 2024).

UniMatch, and beside its own pseudo-labels those of its earlier selves: the best models so far are
kept, and at every step a random ensemble of them labels the same images.
"""

from collections import deque
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from engine import Batch, Method, Step, main
from semi.perturbation import with_dropped_channels
from semi.pseudo_labels import (
    PseudoLabel,
    cutmix,
    label_partner,
    masked_cross_entropy,
    pseudo_label,
    share,
)
from semi.snapshots import Snapshot, ensemble_logits, keep
from util.config import Natural, Positive, Section, Share


class Previous(Section):
    conf_thresh: Share = 0.9
    """Confidence that a label of the previous models needs (`pixelwise`)."""
    confidence: Literal["pixelwise", "pixelavg", "imageavg"] = "pixelwise"
    """What a previous label counts: by its own confidence; by the mean of its image, as published
    for Cityscapes, where each mean weighs the whole batch, padding included; or by the mean of
    its image, within that image and without its padding."""
    store: Literal["cpu", "gpu"] = "cpu"
    """Where the previous models wait."""


class PrevMatch(Method):
    strong_views = 2

    class Options(Section):
        list_max_len: Positive = 8
        """Previous models that are kept; the oldest goes first."""
        model_num: Positive = 3
        """Previous models that label a batch, at most ..."""
        random_select: bool = True
        """... or always."""
        base_only_epoch: Natural = 0
        """The first epoch (from 0) before which a model may be kept."""
        prev: Annotated[Previous, Field(default_factory=Previous)]

    def __init__(self, model, config):
        super().__init__(model, config)
        self.previous: deque[Snapshot] = deque(maxlen=self.options.list_max_len)
        self.epoch = 0

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
        loss_u = 0.25 * loss_s1 + 0.25 * loss_s2 + 0.5 * loss_fp

        weight, loss_prev = 0.0, torch.zeros_like(loss_x)
        if self.previous:
            prev, prev_partner = self.label_by_previous(u)
            prev1, prev2 = cutmix(prev, prev_partner, box1), cutmix(prev, prev_partner, box2)
            loss_prev = 0.25 * self.guidance(z_s1, prev1) + 0.25 * self.guidance(z_s2, prev2)
            loss_prev = loss_prev + 0.5 * self.guidance(z_fp, prev)
            # Up to 1 in the first half of the epochs, down to 0 in the second.
            weight = 1 - abs(2 * self.epoch / self.config.epochs - 1)
        loss = (loss_x + loss_u + weight * loss_prev) / (2 + weight)
        return loss, {
            "x": loss_x, "s": (loss_s1 + loss_s2) / 2, "fp": loss_fp, "prev": loss_prev,
            "mask_ratio": share(own.above(tau), own.valid),
        }  # fmt: skip

    def label_by_previous(self, u: dict[str, Any]) -> tuple[PseudoLabel, PseudoLabel | Tensor]:
        """What a random ensemble of previous models says of the images and of their partners;
        for those in the same batch, their places."""
        options, kept = self.options, len(self.previous)
        most = options.model_num
        count = min(np.random.randint(most) + 1 if options.random_select else most, kept)
        chosen = np.random.choice(kept, count, replace=False)
        weights = np.random.dirichlet(np.ones(count))
        members = [(self.previous[i], float(p)) for i, p in zip(chosen, weights, strict=True)]
        views = [u, u["partner"]] if "partner" in u else [u]
        logits = ensemble_logits(self.model, members, torch.cat([v["weak"] for v in views]))
        parts = zip(logits.chunk(len(views)), views, strict=True)
        prev, *partner = [pseudo_label(z, view["ignore"]) for z, view in parts]
        return prev, partner[0] if partner else u["mate"]

    def guidance(self, logits: Tensor, prev: PseudoLabel) -> Tensor:
        """Cross-entropy with previous labels, counted as `prev.confidence` says."""
        mode = self.options.prev.confidence
        if mode == "pixelwise":
            sure = prev.above(self.options.prev.conf_thresh)
            return masked_cross_entropy(logits, prev.label, sure, prev.valid)
        loss = F.cross_entropy(logits, prev.label, reduction="none")
        total = loss.sum() if mode == "pixelavg" else (loss * prev.valid).sum((1, 2))
        valid = prev.valid.sum((1, 2))
        confidence = (prev.conf * prev.valid).sum((1, 2)) / valid.clamp(min=1)
        return (confidence * total).sum() / valid.sum().clamp(min=1)

    def after_epoch(self, epoch: int, is_best: bool) -> None:
        self.epoch = epoch + 1
        if is_best and self.epoch >= self.options.base_only_epoch:
            self.remember(self.model.state_dict())

    def remember(self, state: Snapshot) -> None:
        on_gpu = self.options.prev.store == "gpu"
        self.previous.append(keep(state, next(self.model.parameters()).device if on_gpu else "cpu"))

    def get_extra_state(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "previous": list(self.previous)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.previous.clear()
        for snapshot in state["previous"]:
            self.remember(snapshot)


if __name__ == "__main__":
    main(PrevMatch)
