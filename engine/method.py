"""The contract of a method."""

from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from dataset.batch import Batch, Unlabeled
from engine.contract import checked_output
from model.network import Network, eval_no_grad
from semi.criterion import build_criterion
from semi.ema import frozen_copy, update_ema
from semi.panels import Panels, consistency_panels
from semi.pseudo_labels import build_consistency_loss
from util.config.loading import parse
from util.config.schema import Config
from util.config.types import Section, Share

StepOutput = tuple[Tensor, dict[str, Tensor | float]]
"""Loss of a step, and scalars to log, by name."""
LEGEND = {
    "loss": "weighted sum of the losses",
    "x": "supervised loss of labelled images",
    "x_corr": "supervised loss after pixel propagation",
    "s": "consistency loss of strong views",
    "kl": "KL divergence of strong and weak view",
    "fp": "consistency loss with perturbed features",
    "corr": "consistency loss after pixel propagation",
    "prev": "consistency loss with previous models",
    "rank": "ranking loss of reference pixels",
    "mask_ratio": "share of pixels above the confidence threshold",
    "threshold": "confidence threshold",
    "grad_norm": "norm of the gradient",
}
"""Meaning of each scalar of the methods, for the log and for `tools.report`, which show other
scalars without one."""


class Method(nn.Module):
    """A method: its forward is the training step, its state everything that survives a restart.

    A subclass defines `step` and, where needed, the other members; two class variables declare its
    batches. It builds further parts (a head, a teacher) in `__init__`; parameters with
    `requires_grad` are trained.
    """

    unlabeled: ClassVar[bool] = True
    """Batches hold unlabelled images."""
    strong_views: ClassVar[int] = 1
    """Strong views of each unlabelled image; 0 for a method that uses weak views only."""

    class Options(Section):
        """The method's keys in the config's `method` section."""

    def __init__(self, model: Network, config: Config):
        super().__init__()
        self.model: Network = model
        self.config = config
        self.options: Any = self.read_options(config)
        self.criterion = build_criterion(config.criterion)
        self.consistency_loss = build_consistency_loss(config.criterion)
        self._scalar_names: list[str] | None = None
        """Names of the scalars of the first step."""

    @classmethod
    def read_options(cls, config: Config) -> Any:
        """Return the validated options; raises `UserError` for keys that the method lacks."""
        return parse(cls.Options, config.method, f"config of {cls.__name__}", "method.")

    @classmethod
    def images_per_step(cls, config: Config) -> int:
        """Return the number of labelled images in a global batch; twice `batch_size` for a method
        without unlabelled images, so that steps of all methods see equally many images."""
        return config.batch_size * (1 if cls.unlabeled else 2)

    def forward(self, batch: Batch) -> StepOutput:
        """Return the output of `step`; raises `ValueError` if it breaks the contract."""
        loss, scalars = checked_output(self, self.step(batch), self._scalar_names)
        self._scalar_names = [*scalars]
        return loss, scalars

    def step(self, batch: Batch) -> StepOutput:
        """Return the loss of a batch (a micro-batch with `micro_batch`) and scalars to log, of the
        same names at every step; tensors stay on the device."""
        raise NotImplementedError

    def after_step(self, iteration: int) -> None:
        """Update parts of the method after optimizer step `iteration` (from 0, over the run)."""

    def after_epoch(self, epoch: int, is_best: bool) -> None:
        """Update parts of the method after `epoch` (from 0) and its validation, before the
        checkpoint; `is_best`: the validation gave the best score of the `labeler` so far."""

    def eval_models(self) -> dict[str, nn.Module]:
        """Return the networks that validation scores, by name: `model` or `model_...`, the name of
        the attribute that holds the network."""
        return {"model": self.model}

    @property
    def labeler(self) -> nn.Module:
        """Network that makes pseudo-labels: the last of `eval_models`, the teacher if any."""
        return list(self.eval_models().values())[-1]

    @property
    def threshold(self) -> float | Tensor:
        """Current confidence threshold."""
        return self.config.conf_thresh

    def panels(self, batch: Batch) -> Panels:
        """Return panels of a batch's unlabelled images, by caption.

        Called at validations, on the main process only, in eval mode and without gradients; it may
        draw random numbers, but must not change the method.
        """
        return consistency_panels(self.labeler, batch["unlabeled"], self.threshold)


class TeacherMethod(Method):
    """A method whose pseudo-labels come from its own network or from an EMA teacher."""

    class Options(Section):
        teacher: Literal["self", "ema"] = "self"
        """Network that makes the pseudo-labels: `self`, the trained network, as published; `ema`, a
        moving average of its weights."""
        ema_momentum: Share = 0.996
        """Momentum of the moving average; at most 1 - 1/(i + 1) at step i, so the average follows
        faster at first."""

    def __init__(self, model: Network, config: Config):
        super().__init__(model, config)
        self.model_ema = frozen_copy(model) if self.options.teacher == "ema" else None

    def label_logits(self, z_w: Tensor, u: Unlabeled) -> Tensor:
        """Return the logits that label the weak view, without gradient: the teacher's in eval mode,
        or `z_w`, the network's own."""
        if self.model_ema is None:
            return z_w.detach()
        with eval_no_grad(self.model_ema):
            return self.model_ema(u["weak"])

    def after_step(self, iteration: int) -> None:
        if self.model_ema is not None:
            update_ema(self.model_ema, self.model, iteration, self.options.ema_momentum)

    def eval_models(self) -> dict[str, nn.Module]:
        teacher = {} if self.model_ema is None else {"model_ema": self.model_ema}
        return {"model": self.model, **teacher}
