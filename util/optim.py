"""SGD in two groups with poly decay."""

import torch
from torch import nn

from util.config import Optimizer


def build_optimizer(network: nn.Module, options: Optimizer) -> torch.optim.Optimizer:
    """SGD: the backbone at `lr`, everything else at `lr * lr_multi`; frozen parameters left out."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups[name.startswith("backbone.")].append(parameter)
    lrs = {True: options.lr, False: options.lr * options.lr_multi}
    return torch.optim.SGD(
        [{"params": p, "lr": lrs[b], "base_lr": lrs[b]} for b, p in groups.items() if p],
        momentum=options.momentum,
        weight_decay=options.weight_decay,
    )


def set_poly_lr(optimizer: torch.optim.Optimizer, step: int, steps: int, power: float) -> float:
    """Set the rates for optimizer step `step` (from 0) of `steps`; returns the first group's.

    The published schedule decays after a step, by that step's number: steps 0 and 1 both run at
    the base rate.
    """
    decay = (1 - max(step - 1, 0) / steps) ** power
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * decay
    return optimizer.param_groups[0]["lr"]
