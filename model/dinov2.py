"""DINOv2 (Oquab et al., TMLR 2024) as published: timm's ViT with the original parameter names and
the original interpolation of the position table."""

import math
import re
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import GluMlp
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
"""True in `torch.export`; before torch 2.7, also in `torch.compile`."""


def is_dinov2(name: str) -> bool:
    """Return True for timm's names of the four published models, without registers."""
    return re.fullmatch(r"vit_\w+_patch14_dinov2(\..*)?", name) is not None


def resample_positions(table: Tensor, rows: int, columns: int) -> Tensor:
    """Position table `[1, 1 + side^2, D]` -> `[1, 1 + rows * columns, D]`, class token first.

    Bicubic without antialiasing, by the factors `(rows + 0.1) / side`, `(columns + 0.1) / side`.
    """
    side = math.isqrt(table.shape[1] - 1)
    if torch.jit.is_tracing() or is_exporting():
        return _resample_for_any_size(table, rows, columns)
    if (rows, columns) == (side, side):
        return table
    grid = table[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    factors = ((rows + 0.1) / side, (columns + 0.1) / side)
    grid = F.interpolate(grid, scale_factor=factors, mode="bicubic")
    return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)


def _resample_for_any_size(table: Tensor, rows: int, columns: int) -> Tensor:
    """Resample at explicit positions, for exporters, which fix the factors of an interpolation."""
    side = math.isqrt(table.shape[1] - 1)
    one = table[0, 0, :1] * 0 + 1  # on the table's device; a traced arange stays on the CPU
    down, across = (one.expand(n).cumsum(0) - 1 for n in (rows, columns))
    is_own_size = (down[-1] == side - 1) & (across[-1] == side - 1)
    offset = torch.where(is_own_size, 0.0, 0.1)
    y, x = (2 * (at + 0.5) / (at[-1] + 1 + offset) - 1 for at in (down, across))
    places = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
    grid = table[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    grid = F.grid_sample(grid, places, "bicubic", "border", align_corners=False)
    return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)


class DINOv2(VisionTransformer):
    """timm's ViT, made with `dynamic_img_size`, with the published interpolation of positions."""

    cls_token: nn.Parameter
    pos_embed: nn.Parameter

    def _pos_embed(self, x: Tensor) -> Tensor:
        """Patches `[B, h, w, D]` -> tokens `[B, 1 + hw, D]`, class token first."""
        tokens = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x.flatten(1, 2)], dim=1)
        return self.pos_drop(tokens + resample_positions(self.pos_embed, *x.shape[1:3]))


class SwiGLU(nn.Module):
    """The gated MLP of the giant model, with published names for timm's layers."""

    def __init__(self, mlp: GluMlp):
        super().__init__()
        self.w12, self.w3 = mlp.fc1, mlp.fc2

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


def as_published(vit: Any) -> DINOv2:
    """Turn timm's DINOv2 into the published one, in place: modules and weights stay.

    The mask token, used in pre-training only, exists because checkpoints hold it.
    """
    vit.__class__ = DINOv2
    vit.mask_token = nn.Parameter(torch.zeros(1, vit.embed_dim), requires_grad=False)
    for block in vit.blocks:
        if isinstance(block.mlp, GluMlp):
            block.mlp = SwiGLU(block.mlp)
    return vit
