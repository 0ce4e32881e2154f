"""DeepLabv3+ (Chen et al., ECCV 2018), with the parameter names of published checkpoints."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.network import Features, PoolingNetwork, upsample


def conv_bn_relu(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> list[nn.Module]:
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


class ImagePooling(nn.Module):
    """The mean of the whole map, at every position."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.gap = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_bn_relu(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        return upsample(self.gap(x), x.shape[-2:])


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: `[B, inputs, h, w]` -> `[B, outputs, h, w]`."""

    def __init__(self, inputs: int, outputs: int, rates: Sequence[int]):
        super().__init__()
        self.b0 = nn.Sequential(*conv_bn_relu(inputs, outputs, 1))
        self.b1, self.b2, self.b3 = (
            nn.Sequential(*conv_bn_relu(inputs, outputs, 3, rate)) for rate in rates
        )
        self.b4 = ImagePooling(inputs, outputs)
        self.project = nn.Sequential(*conv_bn_relu(5 * outputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        branches = (self.b0, self.b1, self.b2, self.b3, self.b4)
        return self.project(torch.cat([branch(x) for branch in branches], dim=1))


class DeepLabV3Plus(PoolingNetwork):
    """Backbone, ASPP on its deep features `c4`, and a decoder with its shallow features `c1`.

    `backbone(x)` returns `[c1, c4]` with `feature_channels`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        feature_channels: Sequence[int],
        num_classes: int,
        aspp_rates: Sequence[int],
        channels: int,
    ):
        super().__init__()
        self.feature_channels = feature_channels
        low, high = feature_channels
        self.backbone = backbone
        self.head = ASPP(high, channels, aspp_rates)
        self.reduce = nn.Sequential(*conv_bn_relu(low, 48, 1))
        self.fuse = nn.Sequential(
            *conv_bn_relu(48 + channels, channels, 3), *conv_bn_relu(channels, channels, 3)
        )
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def context(self, features: Features) -> Features:
        c1, c4 = features
        return [c1, self.head(c4)]

    def classify(self, context: Features, size: Sequence[int]) -> Tensor:
        c1, deep = context
        deep = upsample(deep, c1.shape[-2:])
        fused = self.fuse(torch.cat([self.reduce(c1), deep], dim=1))
        return upsample(self.classifier(fused), size)
