"""Other states of a network than the present one: earlier ones, and their moving average."""

import copy
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from util.pseudo import frozen_statistics

Snapshot = dict[str, Tensor]


def keep(state: Mapping[str, Tensor], device: torch.device | str) -> Snapshot:
    """A copy of a network's state on `device`; what leaves a GPU is pinned, for the way back."""
    kept = {name: value.detach().to(device, copy=True) for name, value in state.items()}
    pinned = torch.device(device).type == "cpu" and torch.cuda.is_available()
    return {name: value.pin_memory() for name, value in kept.items()} if pinned else kept


def ensemble_logits(
    model: nn.Module, members: Iterable[tuple[Snapshot, float]], images: Tensor
) -> Tensor:
    """Weighted sum `[B, C, H, W]` of what earlier states of `model` say, in eval mode, without
    gradient; one of them at a time is on the images' device."""
    total: Tensor | float = 0.0
    with frozen_statistics(model):
        for state, weight in members:
            there = {k: v.to(images.device, non_blocking=True) for k, v in state.items()}
            total = total + weight * torch.func.functional_call(model, there, (images,))
    assert isinstance(total, Tensor)
    return total


def frozen_copy(model: nn.Module) -> nn.Module:
    """A teacher: the same network with the same weights, which no optimizer moves."""
    return copy.deepcopy(model).requires_grad_(False).eval()


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, iteration: int, momentum: float) -> None:
    """The exponential moving average of parameters and buffers after step `iteration` (from 0):
    in the beginning the plain average, so that the first step makes teacher and student equal."""
    ratio = min(1 - 1 / (iteration + 1), momentum)
    pairs = list(zip(teacher.state_dict().values(), student.state_dict().values(), strict=True))
    averaged = [(t, s) for t, s in pairs if t.is_floating_point()]
    update = get_ema_multi_avg_fn(ratio)
    update([t for t, _ in averaged], [s for _, s in averaged], None)
    for t, s in pairs:
        if not t.is_floating_point():  # a count of batches
            t.copy_(s)
