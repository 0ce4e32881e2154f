"""Snapshots: earlier states of a network, and their ensemble."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from model.network import eval_no_grad

Snapshot = dict[str, Tensor]


def snapshot(state: Mapping[str, Tensor], model_device: torch.device, on_gpu: bool) -> Snapshot:
    """Copy the state of a network to its device, or to host memory (pinned for a GPU)."""
    target_device = model_device if on_gpu else torch.device("cpu")
    pinned = target_device != model_device
    return {
        name: torch.empty_like(value, device=target_device, pin_memory=pinned).copy_(value.detach())
        for name, value in state.items()
    }


def ensemble_logits(
    network: nn.Module, members: Iterable[tuple[Snapshot, float]], images: Tensor
) -> Tensor:
    """Return the weighted sum of the logits of earlier states of `network`, `[B, C, H, W]`, in eval
    mode, without gradient; one state at a time is on the images' device."""
    total: Tensor | float = 0.0
    with eval_no_grad(network):
        for state, weight in members:
            moved = {k: v.to(images.device, non_blocking=True) for k, v in state.items()}
            total = total + weight * torch.func.functional_call(network, moved, (images,))
    assert isinstance(total, Tensor)
    return total
