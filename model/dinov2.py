"""DINOv2 (Oquab et al., TMLR 2024) as it was published: timm's ViT, but with the parameter names of
the original checkpoints and their way to fit the table of positions to an image."""

import math
import re
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import GluMlp
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn


def is_dinov2(name: str) -> bool:
    """Whether timm's model `name` is one of the published four; those with registers came later."""
    return re.fullmatch(r"vit_\w+_patch14_dinov2(\..*)?", name) is not None


def resample_positions(table: Tensor, rows: int, columns: int) -> Tensor:
    """Position table `[1, 1 + side^2, D]` -> `[1, 1 + rows * columns, D]`, class token first.

    Bicubic without antialiasing, by the factors `(rows + 0.1) / side`, `(columns + 0.1) / side`.
    """
    side = math.isqrt(table.shape[1] - 1)
    if (rows, columns) == (side, side):
        return table
    grid = table[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    factors = ((rows + 0.1) / side, (columns + 0.1) / side)
    grid = F.interpolate(grid, scale_factor=factors, mode="bicubic")
    return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)


class DINOv2(VisionTransformer):
    """timm's ViT, made with `dynamic_img_size`, that resamples its positions as published."""

    cls_token: nn.Parameter
    pos_embed: nn.Parameter

    def _pos_embed(self, x: Tensor) -> Tensor:
        """Patches `[B, h, w, D]` -> tokens `[B, 1 + hw, D]`, class token first."""
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(1, 2)], dim=1)
        return self.pos_drop(tokens + resample_positions(self.pos_embed, *x.shape[1:3]))


class SwiGLU(nn.Module):
    """The gated MLP of the giant, with the published names for the layers of timm's."""

    def __init__(self, mlp: GluMlp):
        super().__init__()
        self.w12, self.w3 = mlp.fc1, mlp.fc2

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


def as_published(vit: Any) -> DINOv2:
    """Turn timm's DINOv2 into the published one, in place: the modules and weights stay.

    Its mask token served the pre-training alone; it is here since checkpoints hold it.
    """
    vit.__class__ = DINOv2
    vit.mask_token = nn.Parameter(torch.zeros(1, vit.embed_dim), requires_grad=False)
    for block in vit.blocks:
        if isinstance(block.mlp, GluMlp):
            block.mlp = SwiGLU(block.mlp)
    return vit
