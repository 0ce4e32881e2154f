"""DPT (Ranftl et al., ICCV 2021) on a ViT, with the parameter names of published checkpoints."""

import re
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from model.network import Features, Network, upsample
from util.errors import UserError

DECODER_WIDTHS = {
    384: ((48, 96, 192, 384), 64),
    768: ((96, 192, 384, 768), 128),
    1024: ((256, 512, 1024, 1024), 256),
    1536: ((1536, 1536, 1536, 1536), 384),
}
"""Channels of the decoder's four levels and of their fusion, by the width of the published encoder:
ViT-S, B, L, g."""


def tapped_blocks(name: str, depth: int, asked: Sequence[int] | None = None) -> list[int]:
    """Return the four blocks, counted from 1, whose tokens the decoder uses.

    Defaults for timm's ViT `name`: as published for DINOv2 and DINOv3, else the last blocks of the
    four quarters. Raises `UserError` for blocks that the ViT lacks.
    """
    if asked is None:
        quarters = [depth * quarter // 4 for quarter in (1, 2, 3, 4)]
        return [5, 12, 18, 24] if depth == 24 and re.search("dinov[23]", name) else quarters
    if asked[-1] > depth:
        raise UserError(
            f"model.layers: found block {asked[-1]}, but {name} has {depth}. Fix: use numbers "
            f"from 1 to {depth}"
        )
    return list(asked)


class ResidualUnit(nn.Module):
    """ReLU, 3x3, ReLU, 3x3, plus the input."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class Fusion(nn.Module):
    """Add the fused map of deeper levels to a level's own map, and upsample."""

    def __init__(self, channels: int):
        super().__init__()
        self.resConfUnit1 = ResidualUnit(channels)
        self.resConfUnit2 = ResidualUnit(channels)
        self.out_conv = nn.Conv2d(channels, channels, 1)

    def forward(self, own: Tensor, deeper: Tensor | None, size: Sequence[int]) -> Tensor:
        x = own if deeper is None else deeper + self.resConfUnit1(own)
        return self.out_conv(upsample(self.resConfUnit2(x), size))


class Decoder(nn.Module):
    """Four maps `[B, D, h, w]` of one size -> `[B, C, *size]`."""

    def __init__(self, inputs: int, num_classes: int):
        super().__init__()
        # Widths for the widest published encoder that is not wider than this one, or the smallest.
        fitting = [width for width in DECODER_WIDTHS if width <= inputs]
        widths, channels = DECODER_WIDTHS[max(fitting, default=min(DECODER_WIDTHS))]
        self.projects = nn.ModuleList(nn.Conv2d(inputs, width, 1) for width in widths)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(widths[0], widths[0], 4, stride=4),
                nn.ConvTranspose2d(widths[1], widths[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(widths[3], widths[3], 3, stride=2, padding=1),
            ]
        )
        self.scratch = nn.ModuleDict()
        for level, width in enumerate(widths, start=1):
            self.scratch[f"layer{level}_rn"] = nn.Conv2d(width, channels, 3, padding=1, bias=False)
            self.scratch[f"refinenet{level}"] = Fusion(channels)
        self.scratch["output_conv"] = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, num_classes, 1),
        )
        # Level 4 is the deepest and does not use it; checkpoints hold it all the same.
        self.scratch["refinenet4"].resConfUnit1.requires_grad_(False)

    def forward(self, features: Features, size: Sequence[int]) -> Tensor:
        layers = zip(features, self.projects, self.resize_layers, strict=True)
        levels = [
            self.scratch[f"layer{level}_rn"](resize(project(x)))
            for level, (x, project, resize) in enumerate(layers, start=1)
        ]
        h, w = levels[0].shape[-2:]
        sizes = [(2 * h, 2 * w), *(x.shape[-2:] for x in levels[:-1])]
        path = None
        for level in (4, 3, 2, 1):
            fuse = self.scratch[f"refinenet{level}"]
            path = fuse(levels[level - 1], path, sizes[level - 1])
        return upsample(self.scratch["output_conv"](path), size)


class DPT(Network):
    """The patch tokens of four blocks of a ViT, each after the final LayerNorm, and a decoder.

    `backbone` is a plain ViT of timm that takes images of any multiple of its patch size; `layers`:
    the four blocks, counted from 1. Class and register tokens take part in its attention only.
    """

    backbone: Any  # timm's ViTs have no common class with these methods

    def __init__(self, backbone: Any, num_classes: int, layers: Sequence[int]):
        super().__init__()
        blocks = backbone.feature_info
        width = blocks[-1]["num_chs"]
        backbone.size_multiple = blocks[-1]["reduction"]
        self.taps = [block - 1 for block in layers]
        self.feature_channels = [width] * len(self.taps)
        self.backbone = backbone
        self.head = Decoder(width, num_classes)

    def encode(self, x: Tensor) -> Features:
        return self.backbone.forward_intermediates(
            x, indices=self.taps, norm=True, stop_early=True, intermediates_only=True
        )

    def classify(self, context: Features, size: Sequence[int]) -> Tensor:
        return self.head(context, size)
