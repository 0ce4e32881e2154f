"""Activation checkpointing: memory for time, with the same losses and gradients."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from util.errors import UserError


def recompute_blocks(backbone: nn.Module) -> None:
    """Keep only the input of each block in the forward pass; the backward pass runs it again.

    Raises `UserError` for a backbone without blocks.
    """
    blocks = list(_blocks(backbone))
    if not blocks:
        raise UserError(
            "model.checkpoint_activations: this backbone has no blocks to recompute. Fix: use false"
        )
    for block in blocks:
        block.forward = partial(_checkpointed, block, block.forward)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the outermost modules with submodules, except lists of modules."""
    for child in module.children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            yield from _blocks(child)
        elif any(True for _ in child.children()):
            yield child


@torch.compiler.disable  # dynamo cannot compile a checkpoint with a context of its own
def _checkpointed(block: nn.Module, forward: Callable[..., Any], *inputs: Any, **more: Any) -> Any:
    def run_block(*inputs: Any) -> Any:
        # HRNet's blocks write into their input list; the second run needs the original.
        return forward(*(list(x) if isinstance(x, list) else x for x in inputs), **more)

    return checkpoint(
        run_block,
        *inputs,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), _on_copies_of_buffers(block)),
    )


@contextmanager
def _on_copies_of_buffers(block: nn.Module) -> Iterator[None]:
    """Run on copies of the running statistics, so that a batch is counted once."""
    buffers = [(m, name, b) for m in block.modules() for name, b in m.named_buffers(recurse=False)]
    for module, name, buffer in buffers:
        setattr(module, name, buffer.clone())
    try:
        yield
    finally:
        for module, name, buffer in buffers:
            setattr(module, name, buffer)
