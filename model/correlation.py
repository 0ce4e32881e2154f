"""Correlation head of CorrMatch (Sun et al., CVPR 2024)."""

import torch
from torch import Tensor, nn

from model.network import Features, upsample
from util.precision import at_least_float32


class Correlation(nn.Module):
    """`A = softmax_j(f1_i . f2_j / sqrt(C))`: row `i`: similarity of pixel `i` to each `j`."""

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, num_classes, 1)
        self.conv2 = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Features `[B, D, h, w]` -> `A` `[B, hw, hw]`, rows summing to 1."""
        f1, f2 = self.conv1(x).flatten(2), self.conv2(x).flatten(2)
        return (f1.transpose(1, 2) @ f2 / f1.shape[1] ** 0.5).softmax(dim=-1)


class CorrelationHead(nn.Module):
    """Pixel propagation (CorrMatch, section 3.2): `z_corr[c, j] = sum_i logits[c, i] A[i, j]`.

    Parameter names are those of published checkpoints.
    """

    def __init__(self, inputs: int, channels: int, num_classes: int):
        super().__init__()
        self.proj = nn.Sequential(
            nn.Conv2d(inputs, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Dropout2d(0.1),
        )
        self.corr = Correlation(channels, num_classes)

    def forward(self, features: Features, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return `z_corr` `[B, C, H, W]` and `A` `[B, hw, hw]` over the pixels of the deepest map.

        `logits` `[B, C, H, W]` are used without gradient.
        """
        (h, w), size = features[-1].shape[-2:], logits.shape[-2:]
        x = self.proj(features[-1])
        # bfloat16 is too coarse for correlations: CorrMatch lost two to nine points of mIoU on the
        # generated shapes.
        with torch.autocast(x.device.type, enabled=False):
            correlation = self.corr(at_least_float32(x))
            values = upsample(at_least_float32(logits.detach()), (h, w))
            propagated = (values.flatten(2) @ correlation).unflatten(2, (h, w))
            return upsample(propagated, size), correlation
