"""Speed settings of the config: TF32, memory layout, compilation."""

import os
import shlex
import shutil
import sys

import torch
from torch import nn

from model.dpt import DPT
from util.config.schema import Config
from util.errors import UserError
from util.precision import precision_on

MAX_COMPILED_GRAPHS = 64
"""Graphs that `torch.compile` may keep."""


def use_layout(module: nn.Module, config: Config) -> None:
    """Set TF32 and the memory layout of the config, for a network or all networks of a method.

    Convolutions use the layout of their weights, so images need none.
    """
    if config.tf32 is not None:
        torch.backends.cuda.matmul.allow_tf32 = config.tf32
        torch.backends.cudnn.allow_tf32 = config.tf32
    if is_channels_last(config, next(module.parameters()).device):
        module.to(memory_format=torch.channels_last)


def is_channels_last(config: Config, device: torch.device) -> bool:
    """Return True if the layout is channels last; auto: on GPUs and on CPUs in bfloat16, as float32
    on CPUs is not faster with it."""
    if config.channels_last != "auto":
        return config.channels_last
    return device.type == "cuda" or precision_on(device, config.precision) != "float32"


def require_compiler(device: torch.device) -> None:
    """Raise `UserError` where `torch.compile` finds no compiler: C++ for a CPU, C for a GPU."""
    variable, names = "CXX", ["clang++" if sys.platform == "darwin" else "g++"]
    if device.type == "cuda":
        variable, names = "CC", ["gcc", "clang"]
    names = shlex.split(os.environ.get(variable, ""))[:1] or names
    if not any(map(shutil.which, names)):
        raise UserError(
            f"compile: no compiler found; expected {' or '.join(names)} in PATH. Fix: install it, "
            f"name another in {variable}, or --set compile=false"
        )


def compile_parts(method: nn.Module) -> None:
    """Compile the parts of a method's networks in place, so that their states keep their names.

    Call it last: a copy of a compiled part would run the original's weights.
    """
    # torch counts the graphs of all parts together (training, validation, image sizes): with its
    # limit of 8, some parts would run uncompiled.
    torch._dynamo.config.cache_size_limit = MAX_COMPILED_GRAPHS
    for network in method.children():
        # DPT calls the blocks of its ViT, not the ViT.
        blocks = network.backbone.blocks if isinstance(network, DPT) else ()
        for part in (*network.children(), *blocks):
            part.compile()
