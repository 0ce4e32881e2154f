"""EMA teachers: the moving average of a network."""

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

M = TypeVar("M", bound=nn.Module)


def frozen_copy(network: M) -> M:
    """Return a copy of a network for a teacher, without gradients."""
    return copy.deepcopy(network).requires_grad_(False).eval()


@torch.no_grad()
def update_ema(teacher: nn.Module, student: nn.Module, iteration: int, momentum: float) -> None:
    """Update the moving average of parameters and buffers after step `iteration` (from 0).

    It begins as the plain average, so the first step makes teacher and student equal.
    """
    ratio = min(1 - 1 / (iteration + 1), momentum)
    pairs = list(zip(teacher.state_dict().values(), student.state_dict().values(), strict=True))
    averaged = [(t, s) for t, s in pairs if t.is_floating_point()]
    update = get_ema_multi_avg_fn(ratio)
    update([t for t, _ in averaged], [s for _, s in averaged], None)
    for t, s in pairs:
        if not t.is_floating_point():  # a batch norm's number of batches
            t.copy_(s)
