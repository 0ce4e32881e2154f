"""Earlier states of a network, and what they say together."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from semi.pseudo_labels import frozen_statistics

Snapshot = dict[str, Tensor]


def snapshot(state: Mapping[str, Tensor], home: torch.device, on_gpu: bool) -> Snapshot:
    """A copy of the state of a network at `home`: there, or in host memory, which is pinned where
    home is a GPU, for the way back."""
    place = home if on_gpu else torch.device("cpu")
    pinned = place != home
    return {
        name: torch.empty_like(value, device=place, pin_memory=pinned).copy_(value.detach())
        for name, value in state.items()
    }


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
