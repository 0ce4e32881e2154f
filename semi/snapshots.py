"""Earlier states of a network, and what they say together."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from semi.pseudo_labels import frozen_statistics

Snapshot = dict[str, Tensor]


def snapshot(state: Mapping[str, Tensor], device: torch.device | str) -> Snapshot:
    """A copy of a network's state on `device`; what leaves a GPU is pinned, for the way back."""
    kept = {name: value.detach().to(device, copy=True) for name, value in state.items()}
    pinned = torch.device(device).type == "cpu" and torch.cuda.is_initialized()
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
