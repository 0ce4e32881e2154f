"""U-Net (Ronneberger et al., MICCAI 2015), with the parameter names of published checkpoints of
semi-supervised cardiac segmentation (SSL4MIS, UniMatch)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from model.network import Features, Network, crop_size_error, upsample


class DoubleConv(nn.Module):
    """Two times 3x3 convolution, batch norm, leaky ReLU; elementwise dropout in between."""

    def __init__(self, inputs: int, outputs: int, dropout: float = 0.0):
        super().__init__()
        self.conv_conv = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_conv(x)


class Down(nn.Module):
    """Half the resolution (rounded up, so that an image may have any size), then a block."""

    def __init__(self, inputs: int, outputs: int, dropout: float):
        super().__init__()
        pool = nn.MaxPool2d(2, ceil_mode=True)
        self.maxpool_conv = nn.Sequential(pool, DoubleConv(inputs, outputs, dropout))

    def forward(self, x: Tensor) -> Tensor:
        return self.maxpool_conv(x)


class Up(nn.Module):
    """Concatenate the map of a level and the deeper map, narrowed and upsampled; then a block."""

    def __init__(self, deeper: int, own: int):
        super().__init__()
        self.conv1x1 = nn.Conv2d(deeper, own, 1)
        self.conv = DoubleConv(2 * own, own)

    def forward(self, deeper: Tensor, own: Tensor) -> Tensor:
        enlarged = upsample(self.conv1x1(deeper), own.shape[-2:])
        return self.conv(torch.cat([own, enlarged], dim=1))


class Encoder(nn.Module):
    """Images `[B, inputs, H, W]` -> a map per level with `widths` channels, each at half the
    resolution of the one before."""

    def __init__(self, inputs: int, widths: Sequence[int], dropout: Sequence[float]):
        super().__init__()
        self.in_conv = DoubleConv(inputs, widths[0], dropout[0])
        for level, (above, own) in enumerate(pairwise(widths), start=1):
            self.add_module(f"down{level}", Down(above, own, dropout[level]))

    def forward(self, x: Tensor) -> Features:
        maps: Features = []
        for block in self.children():
            maps.append(block(maps[-1] if maps else x))
        return maps


class Decoder(nn.Module):
    """The maps of all levels -> logits at the size of the first."""

    def __init__(self, widths: Sequence[int], num_classes: int):
        super().__init__()
        for level, (deeper, own) in enumerate(pairwise(reversed(widths)), start=1):
            self.add_module(f"up{level}", Up(deeper, own))
        self.out_conv = nn.Conv2d(widths[0], num_classes, 3, padding=1)

    def forward(self, features: Features) -> Tensor:
        *skips, x = features
        *ups, out_conv = self.children()
        for up, own in zip(ups, reversed(skips), strict=True):
            x = up(x, own)
        return out_conv(x)


class UNet(Network):
    """Encoder with a level for each of `widths`, and a decoder with skip connections.

    `dropout`: probability in each level's block of the encoder.
    """

    def __init__(
        self, inputs: int, num_classes: int, widths: Sequence[int], dropout: Sequence[float]
    ):
        super().__init__()
        self.feature_channels = widths
        self.encoder = Encoder(inputs, widths, dropout)
        self.decoder = Decoder(widths, num_classes)

    @property
    def backbone(self) -> nn.Module:  # type: ignore[override]
        return self.encoder

    def encode(self, x: Tensor) -> Features:
        return self.encoder(x)

    def classify(self, context: Features, size: Sequence[int]) -> Tensor:
        return upsample(self.decoder(context), size)

    def check_crop(self, crop_size: int) -> None:
        least = 2 ** len(self.feature_channels)
        if crop_size < least:
            levels = f"a U-Net of {len(self.feature_channels)} levels"
            raise crop_size_error(crop_size, [least], f"{levels} needs 2x2 pixels at the deepest")
