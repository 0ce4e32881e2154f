"""Snapshots: earlier states of a network, and their ensemble."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from semi.pseudo_labels import frozen_statistics

Snapshot = dict[str, Tensor]


def snapshot(state: Mapping[str, Tensor], home: torch.device, on_gpu: bool) -> Snapshot:
    """Copy the state of a network on device `home`, to it or to host memory (pinned for a GPU)."""
    place = home if on_gpu else torch.device("cpu")
    pinned = place != home
    return {
        name: torch.empty_like(value, device=place, pin_memory=pinned).copy_(value.detach())
        for name, value in state.items()
    }


def ensemble_logits(
    model: nn.Module, members: Iterable[tuple[Snapshot, float]], images: Tensor
) -> Tensor:
    """Return the weighted sum of the logits of earlier states of `model`, `[B, C, H, W]`, in eval
    mode, without gradient; one state at a time is on the images' device."""
    total: Tensor | float = 0.0
    with frozen_statistics(model):
        for state, weight in members:
            there = {k: v.to(images.device, non_blocking=True) for k, v in state.items()}
            total = total + weight * torch.func.functional_call(model, there, (images,))
    assert isinstance(total, Tensor)
    return total
