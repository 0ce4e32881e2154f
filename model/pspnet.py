"""PSPNet (Zhao et al., CVPR 2017), with the parameter names of published checkpoints."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.deeplabv3plus import conv_bn_relu
from model.network import Features, PoolingNetwork, upsample

POOL_SIZES = (1, 2, 3, 6)
"""Cells along the sides of the four pooled maps."""


class PyramidPooling(nn.Module):
    """Concatenate a map and its means over cells: `[B, D, h, w]` -> `[B, 2D, h, w]`."""

    def __init__(self, inputs: int):
        super().__init__()
        width = inputs // len(POOL_SIZES)
        self.conv1, self.conv2, self.conv3, self.conv4 = (
            nn.Sequential(*conv_bn_relu(inputs, width, 1)) for _ in POOL_SIZES
        )

    def forward(self, x: Tensor) -> Tensor:
        levels = (self.conv1, self.conv2, self.conv3, self.conv4)
        means = [
            conv(F.adaptive_avg_pool2d(x, cells))
            for conv, cells in zip(levels, POOL_SIZES, strict=True)
        ]
        return torch.cat([x, *(upsample(mean, x.shape[-2:]) for mean in means)], dim=1)


class PSPHead(nn.Module):
    """Pyramid pooling of the deepest features, and a classifier: `context`, then `classify`."""

    def __init__(self, inputs: int, num_classes: int):
        super().__init__()
        width = inputs // len(POOL_SIZES)
        self.conv5 = nn.Sequential(
            PyramidPooling(inputs),
            *conv_bn_relu(inputs + len(POOL_SIZES) * width, width, 3),
            nn.Dropout(0.1),
            nn.Conv2d(width, num_classes, 1),
        )

    def context(self, x: Tensor) -> Tensor:
        """Return `[B, inputs / 4, h, w]`."""
        return self.conv5[:4](x)

    def classify(self, x: Tensor) -> Tensor:
        return self.conv5[4:](x)


class PSPNet(PoolingNetwork):
    """Backbone, and pyramid pooling of its deepest features at four scales.

    `backbone(x)` returns feature maps; only the last one, with `channels` channels, is used.
    """

    def __init__(self, backbone: nn.Module, channels: int, num_classes: int):
        super().__init__()
        self.feature_channels = [channels]
        self.backbone = backbone
        self.head = PSPHead(channels, num_classes)

    def encode(self, x: Tensor) -> Features:
        return super().encode(x)[-1:]

    def context(self, features: Features) -> Features:
        (deep,) = features
        return [self.head.context(deep)]

    def classify(self, context: Features, size: Sequence[int]) -> Tensor:
        (deep,) = context
        return upsample(self.head.classify(deep), size)
