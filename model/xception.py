"""Aligned Xception-65 (Chen et al., ECCV 2018), with published parameter names."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

NAME = "xception65_deeplab"


def norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, momentum=0.0003)


class SeparableConv(nn.Module):
    """Depthwise 3x3, then pointwise; a ReLU before both, or one after each (`relu_after`)."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, dilation: int, relu_after: bool = False
    ):
        super().__init__()
        self.depthwise = nn.Conv2d(
            inputs, inputs, 3, stride, dilation, dilation, groups=inputs, bias=False
        )
        self.bn1 = norm(inputs)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = norm(outputs)
        self.relu_after = relu_after

    def forward(self, x: Tensor) -> Tensor:
        if self.relu_after:
            return F.relu(self.bn2(self.pointwise(F.relu(self.bn1(self.depthwise(x))))))
        return self.bn2(self.pointwise(self.bn1(self.depthwise(F.relu(x)))))


class Block(nn.Module):
    """Three separable convolutions, the last one strided, and a skip connection."""

    def __init__(self, inputs: int, middle: int, outputs: int, stride: int, dilation: int = 1):
        super().__init__()
        if inputs != outputs:  # as in all strided blocks
            self.skip = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.skipbn = norm(outputs)
        self.sepconv1 = SeparableConv(inputs, middle, 1, dilation)
        self.sepconv2 = SeparableConv(middle, outputs, 1, dilation)
        self.sepconv3 = SeparableConv(outputs, outputs, stride, dilation)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs of the block and of its second convolution (input resolution)."""
        # In the published network the first ReLU is in place, so a skip without weights carries
        # its result; trained weights rely on it.
        skip = self.skipbn(self.skip(x)) if hasattr(self, "skip") else F.relu(x)
        inner = self.sepconv2(self.sepconv1(x))
        return self.sepconv3(inner) + skip, inner


class Xception65(nn.Module):
    """Images `[B, C, H, W]` -> features at stride 4 (256 channels) and `output_stride` (2048).

    Strides beyond `output_stride` 8, 16 or 32 become 1; as published, only output stride 8 dilates
    the convolutions instead.
    """

    channels = (256, 2048)

    def __init__(self, output_stride: int, in_channels: int):
        super().__init__()
        dilation = 2 if output_stride == 8 else 1
        entry = 2 if output_stride >= 16 else 1
        last = 2 if output_stride == 32 else 1
        self.conv1 = nn.Conv2d(in_channels, 32, 3, 2, 1, bias=False)
        self.bn1 = norm(32)
        self.conv2 = nn.Conv2d(32, 64, 3, 1, 1, bias=False)
        self.bn2 = norm(64)
        self.block1 = Block(64, 128, 128, stride=2)
        self.block2 = Block(128, 256, 256, stride=2)
        self.block3 = Block(256, 728, 728, entry)
        for number in range(4, 20):
            self.add_module(f"block{number}", Block(728, 728, 728, 1, dilation))
        self.block20 = Block(728, 728, 1024, last, dilation)
        self.conv3 = SeparableConv(1024, 1536, 1, dilation, relu_after=True)
        self.conv4 = SeparableConv(1536, 1536, 1, dilation, relu_after=True)
        self.conv5 = SeparableConv(1536, 2048, 1, dilation, relu_after=True)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x, _ = self.block1(x)
        x, low = self.block2(x)
        for number in range(3, 21):
            x, _ = self.get_submodule(f"block{number}")(x)
        return [low, self.conv5(self.conv4(self.conv3(x)))]
