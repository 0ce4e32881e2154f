"""SGD or AdamW with poly decay, one parameter group per learning rate; non-finite steps."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from timm.models import group_parameters
from torch import Tensor, nn

from model.network import Network
from util import distributed
from util.config.schema import Config, Optimizer
from util.errors import UserError, counted, reason
from util.log import logger
from util.precision import precision_on


def with_scaled_lr(config: Config) -> Config:
    """Return the config with the learning rate for its `batch_size`, by the linear rule (Goyal et
    al., 2017), if `optimizer.scale_lr` is set.

    Logs a line where `batch_size` differs from `optimizer.lr_batch`.
    """
    options, batch = config.optimizer, config.batch_size
    if options.lr_batch in (None, batch):
        return config
    lr = options.lr * batch / options.lr_batch
    schedule = f"schedules count epochs: {config.epochs}, with another number of steps"
    if config.epoch_length is not None:
        steps = counted(config.epoch_length, "step")
        schedule = f"epochs keep their {steps} and see another number of images"
    meant = f"{options.lr:g} is meant for batch_size {options.lr_batch}"
    if not options.scale_lr:
        fix = "Fix: set optimizer.scale_lr=true, or optimizer.lr_batch to this batch_size"
        logger.warning(
            "batch_size %d: optimizer.lr %s; the linear rule gives %g; %s. %s",
            batch, meant, lr, schedule, fix,
        )  # fmt: skip
        return config
    logger.info(
        "batch_size %d: optimizer.lr scaled to %g by the linear rule (%s); %s",
        batch, lr, meant, schedule,
    )  # fmt: skip
    # lr_batch too: a run that starts from this run's config.yaml must not scale again.
    options = options.model_copy(update={"lr": lr, "lr_batch": batch})
    return config.model_copy(update={"optimizer": options})


def build_optimizer(method: nn.Module, options: Optimizer) -> torch.optim.Optimizer:
    """Return an optimizer of all parameters with `requires_grad` (not of an EMA teacher or a locked
    backbone).

    Backbones of the method's networks learn at `lr` (with `layer_decay` below 1, lower layers at
    less), everything else, heads of the method included, at `lr * lr_multi`. The first group
    holds the backbone parameters with the highest rate, the last one everything outside the
    backbones. Checkpoints store the state by position:
    inside a group, parameters are in the order of `method.parameters()`.
    """
    networks = [module for module in method.modules() if isinstance(module, Network)]
    layers_below = {
        parameter: below
        for network in networks
        for parameter, below in layers_below_last(network.backbone, options.layer_decay).items()
    }
    groups: dict[int, list[nn.Parameter]] = {n: [] for n in sorted({*layers_below.values()})}
    rest: list[nn.Parameter] = []
    for parameter in method.parameters():
        if parameter.requires_grad:
            group = groups[layers_below[parameter]] if parameter in layers_below else rest
            group.append(parameter)
    rates = [options.lr * options.layer_decay**below for below in groups]
    rates.append(options.lr * options.lr_multi)
    parameters = [
        {"params": p, "lr": lr, "base_lr": lr}
        for lr, p in zip(rates, [*groups.values(), rest], strict=True)
        if p
    ]
    decay = options.weight_decay
    # Fused: one kernel, which can skip a step without asking the device.
    if options.name == "adamw":
        return torch.optim.AdamW(parameters, betas=(0.9, 0.999), weight_decay=decay, fused=True)
    assert options.name == "sgd"
    sgd = torch.optim.SGD(parameters, momentum=options.momentum, weight_decay=decay, fused=True)
    _zero_missing_momenta(sgd)
    return sgd


def layers_below_last(backbone: nn.Module, decay: float) -> dict[nn.Parameter, int]:
    """Return the number of layers from each trained parameter of a backbone to the last trained
    layer; 0 for all where `decay` is 1.

    timm's layers: the patch embedding with positions, class and register tokens; each block; the
    final norm belongs to the last block. Raises `UserError` for a backbone without layers.
    """
    if decay == 1:
        return dict.fromkeys(backbone.parameters(), 0)
    matcher: Any = getattr(backbone, "group_matcher", None)
    if matcher is None:
        raise UserError(
            f"optimizer.layer_decay: found {decay:g}, but this backbone has no layers known to "
            "timm. Fix: set it to 1, or use model.network dpt on a ViT"
        )
    layers = group_parameters(backbone, matcher(), reverse=True)
    trained = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
    # The final norm may follow blocks that are not trained (model.layers).
    last = max((layers[name] for name in trained if not name.startswith("norm.")), default=0)
    return {p: max(0, last - layers[name]) for name, p in trained.items()}


class LossScale:
    """Dynamic loss scale of float16, on the device; 1 in the other precisions.

    It halves when gradients overflow, and doubles after `GROWTH_INTERVAL` steps without overflow.
    Unlike torch's `GradScaler`, it ignores steps whose loss is not finite, which no scale can help,
    and does not fall below `FLOOR`, where gradients underflow to 0.
    """

    START, FLOOR, CEILING = 2.0**16, 1.0, 2.0**64
    GROWTH_INTERVAL = 2000

    def __init__(self, device: torch.device, precision: str):
        is_dynamic = precision_on(device, precision) == "float16"
        self.value = torch.full((), self.START, device=device) if is_dynamic else None
        """The scale; None is 1."""
        self._steps = torch.zeros((), dtype=torch.int, device=device)

    def scale(self, loss: Tensor) -> Tensor:
        return loss if self.value is None else loss * self.value

    def step(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
        """Take an optimizer step with the scaled gradients, unless their norm is not finite; return
        the norm without the scale.

        The fused kernels decide on the device, so the CPU does not wait. Ranks have the same
        gradients and decide alike.
        """
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        norm = norm if self.value is None else norm / self.value
        optimizer.grad_scale = self.value  # type: ignore[attr-defined]
        optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
        optimizer.step()
        self.update(loss, norm)
        return norm

    def update(self, loss: Tensor, grad_norm: Tensor) -> None:
        """Adapt the scale to a step; every rank adapts it alike, whichever loss is not finite."""
        if self.value is None:
            return
        bad_loss = distributed.all_reduce((~loss.isfinite()).int(), "max").bool()
        overflow = ~grad_norm.isfinite() & ~bad_loss
        steps = torch.where(overflow, 0, self._steps + ~bad_loss)
        grows = steps >= self.GROWTH_INTERVAL
        factor = torch.where(overflow, 0.5, torch.where(grows, 2.0, 1.0))
        self.value = (self.value * factor).clamp(self.FLOOR, self.CEILING)
        self._steps = torch.where(grows, 0, steps)

    def state(self) -> dict[str, float]:
        scale = 1.0 if self.value is None else self.value.item()
        return {"scale": scale, "_growth_tracker": int(self._steps.item())}

    def load_state(self, state: dict[str, float]) -> None:
        """Restore a saved scale; ignore one below `FLOOR`."""
        if self.value is not None and state["scale"] >= self.FLOOR:
            self.value.fill_(state["scale"])
            self._steps.fill_(state["_growth_tracker"])


@contextmanager
def keeping_statistics_finite(method: nn.Module) -> Iterator[None]:
    """Restore the running statistics of a method if any of their values becomes non-finite: a
    non-finite batch spoils them in the forward pass. Decided on the device."""
    before = _statistics(method)
    shapes = {name: buffer.shape for name, buffer in before.items()}
    copies = _flat(before).split([buffer.numel() for buffer in before.values()])
    saved = dict(zip(before, copies, strict=True))
    yield
    # Again: a method may replace a buffer (`self.tau = ...`), or resize one, such as a backbone's
    # cache for images of another size.
    buffers = {n: b for n, b in _statistics(method).items() if shapes.get(n) == b.shape}
    old, now = _flat({name: saved[name] for name in buffers}), _flat(buffers)
    # A constant buffer, such as an attention mask, may hold infinities from the start.
    kept = torch.where((now.isfinite() | ~old.isfinite()).all(), now, old)
    values = kept.split([buffer.numel() for buffer in buffers.values()])
    for buffer, value in zip(buffers.values(), values, strict=True):
        buffer.copy_(value.view_as(buffer))


def _statistics(method: nn.Module) -> dict[str, Tensor]:
    return {name: b for name, b in method.named_buffers() if b.is_floating_point()}


def _flat(buffers: dict[str, Tensor]) -> Tensor:
    return torch.cat([b.flatten() for b in buffers.values()]) if buffers else torch.empty(0)


def _zero_missing_momenta(optimizer: torch.optim.Optimizer) -> None:
    """Set missing momenta of SGD to 0: torch allocates them uninitialised in the first step, and
    leaves them so where that step is skipped."""
    groups = [group for group in optimizer.param_groups if group.get("momentum")]
    for group in groups:
        for parameter in group["params"]:
            optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any], source: Path) -> None:
    """Load the optimizer's state, such as momentum, but not its settings, which the config holds.

    Raises `UserError` for the state of other parameters.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    try:
        entries = state["state"]
        if not all(_fits(entry, parameters[index]) for index, entry in entries.items()):
            raise ValueError("shapes of other parameters")
        if len({frozenset(entry) for entry in entries.values()}) > 1:
            raise ValueError("incomplete")
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": entries, "param_groups": groups})
        _match_memory_format(optimizer)
        _zero_missing_momenta(optimizer)
    except Exception as error:  # torch rejects a malformed state
        raise UserError(
            f"{source}: not the optimizer's state of this network ({reason(error)}); expected a "
            "checkpoint of the same config"
        ) from None


def _fits(entry: dict[str, Tensor | None], parameter: nn.Parameter) -> bool:
    """Return True if the state of a parameter has its shape; the number of steps is a scalar."""
    return all(
        v is None or (v.is_floating_point() and v.shape == (() if k == "step" else parameter.shape))
        for k, v in entry.items()
    )


def _match_memory_format(optimizer: torch.optim.Optimizer) -> None:
    """Give the state of a parameter the parameter's memory layout: fused kernels need both alike,
    and `channels_last` may have changed since the state was saved."""
    for parameter, entry in optimizer.state.items():
        for name, value in entry.items():
            if value is not None and value.shape == parameter.shape:
                entry[name] = torch.empty_like(parameter).copy_(value)


def set_poly_lr(optimizer: torch.optim.Optimizer, step: int, steps: int, power: float) -> float:
    """Set the learning rates of step `step` (from 0) of `steps`; return the first group's.

    The published schedule decays after a step, by that step's number: steps 0 and 1 both run at
    the base rate.
    """
    decay = (1 - max(step - 1, 0) / steps) ** power
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * decay
    return optimizer.param_groups[0]["lr"]
