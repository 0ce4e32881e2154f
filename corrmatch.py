"""CorrMatch: label propagation via correlation matching (Sun et al., CVPR 2024).

FixMatch with label propagation: the correlation of features spreads logits from pixel to pixel, and
pseudo-labels through whole regions. The confidence threshold follows the network's confidence.
With `teacher: ema`, a moving average of the network makes the pseudo-labels, but not the
correlations.
"""

from engine.start import check_command

if __name__ == "__main__":
    # handles --help and reports mistakes before importing PyTorch
    check_command("CorrMatch")

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from engine import Batch, Panels, StepOutput, TeacherMethod, main
from model.correlation import CorrelationHead
from model.network import Network
from semi.correlation import mean_class_confidence, propagate_regions, region_maps, sample_rows
from semi.panels import Labels, correlation_panels
from semi.perturbation import with_dropped_channels
from semi.pseudo_labels import (
    PseudoLabel,
    cutmix,
    label_partner,
    mask_ratio,
    mean_over_valid,
    pseudo_label,
)
from util import distributed
from util.config.schema import Config
from util.config.types import Share
from util.precision import at_least_float32


class CorrMatch(TeacherMethod):
    class Options(TeacherMethod.Options):
        thresh_init: Share | None = 0.85
        """Initial value of the dynamic threshold; null fixes the threshold at `conf_thresh`."""
        thresh_momentum: Share = 0.999
        """Share of the dynamic threshold that each step keeps; the rest comes from the current
        confidence."""
        regions: Annotated[int, Field(gt=0, le=4096)] = 128
        """Regions of region propagation, random rows of the correlation matrix; fewer are
        faster."""

    tau: Tensor

    def __init__(self, model: Network, config: Config):
        super().__init__(model, config)
        inputs, width = model.feature_channels[-1], config.model.channels
        self.correlation = CorrelationHead(inputs, width, config.num_classes)
        start = self.options.thresh_init
        self.register_buffer("tau", torch.tensor(config.conf_thresh if start is None else start))

    def load_state_dict(self, *state, **options):
        """Load a state, but keep a fixed threshold at `conf_thresh`, which may have changed."""
        loaded = super().load_state_dict(*state, **options)
        if self.options.thresh_init is None:
            self.tau.fill_(self.config.conf_thresh)
        return loaded

    def step(self, batch: Batch) -> StepOutput:
        x, y, u = batch["labeled"]["image"], batch["labeled"]["mask"], batch["unlabeled"]
        (s,), (box,) = u["strong"], u["box"]
        size = x.shape[-2:]
        partner = label_partner(self.labeler, u)

        features = self.model.features(torch.cat([x, u["weak"]]))
        z, z_dropped = self.model.decode(with_dropped_channels(features), size).chunk(2)
        z_corr, correlation = self.correlation(features, z)
        z_x, z_w = z.chunk(2)
        z_corr_x, z_corr_w = z_corr.chunk(2)
        _, z_fp = z_dropped.chunk(2)

        features_s = self.model.features(s)
        z_s = self.model.decode(features_s, size)
        z_corr_s, _ = self.correlation(features_s, z_s)

        z_label = self.label_logits(z_w, u)
        own = pseudo_label(z_label, u["ignore"])
        mixed = cutmix(own, partner, box)
        if self.options.thresh_init is not None:
            current = mean_class_confidence(own.label, own.conf, mixed.valid, z.shape[1], self.tau)
            # A micro-batch moves the threshold by its share of the batch: a step moves it once.
            batch_share = len(x) * distributed.world_size() / self.config.batch_size
            self.tau.lerp_(current, 1 - self.options.thresh_momentum**batch_share)

        propagated = self.propagate(mixed, correlation[len(x) :], features[-1].shape[-2:], box)

        loss_x = self.criterion(z_x, y)
        loss_x_corr = self.criterion(z_corr_x, y)
        loss_s = self.consistency_loss(z_s, propagated, 1)
        loss_corr_s = self.consistency_loss(z_corr_s, propagated, 1)
        loss_corr_w = self.consistency_loss(z_corr_w, own, self.tau)
        loss_fp = self.consistency_loss(z_fp, own, self.tau)
        p_w, log_s = at_least_float32(z_label).softmax(1), at_least_float32(z_s).log_softmax(1)
        kl = F.kl_div(log_s, p_w, reduction="none").sum(1)
        loss_kl = mean_over_valid(kl, mixed.above(self.tau), mixed.valid)
        loss_corr = (loss_corr_s + loss_corr_w) / 2

        supervised = 0.5 * (loss_x + loss_x_corr)
        loss = (supervised + 0.25 * (loss_s + loss_kl + loss_fp + loss_corr)) / 2
        return loss, {
            "x": loss_x, "x_corr": loss_x_corr, "s": loss_s, "kl": loss_kl, "fp": loss_fp,
            "corr": loss_corr, "mask_ratio": mask_ratio(own, self.tau),
            "threshold": self.tau.clone(),
        }  # fmt: skip

    def propagate(
        self, mixed: PseudoLabel, correlation: Tensor, shape: torch.Size, box: Tensor
    ) -> PseudoLabel:
        """Propagate labels of the confident pixels through regions (section 3.3), outside the
        CutMix `box` only."""
        rows = sample_rows(correlation, self.options.regions)
        regions = region_maps(correlation, rows, shape, box.shape[-2:])
        regions = regions & (mixed.valid & ~box)[:, None]
        confident, classes = mixed.above(self.tau), self.config.num_classes
        label, reliable = propagate_regions(mixed.label, confident, regions, self.tau, classes)
        return PseudoLabel(label, reliable.float(), mixed.valid)  # confidence 0 or 1

    @property
    def threshold(self) -> Tensor:
        return self.tau

    def panels(self, batch: Batch) -> Panels:
        u, (box,) = batch["unlabeled"], batch["unlabeled"]["box"]
        features = self.model.features(u["weak"])
        z = self.model.decode(features, box.shape[-2:])
        _, correlation = self.correlation(features, z)
        own = pseudo_label(self.label_logits(z, u), u["ignore"])
        mixed = cutmix(own, label_partner(self.labeler, u), box)
        propagated = self.propagate(mixed, correlation, features[-1].shape[-2:], box)
        return {
            **super().panels(batch),
            "label after propagation": Labels(propagated.label, propagated.above(1)),
            **correlation_panels(u["weak"], correlation, features[-1].shape[-2:]),
        }


if __name__ == "__main__":
    main(CorrMatch)
