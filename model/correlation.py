"""CorrMatch's correlation head (Sun et al., CVPR 2024): every pixel votes for those like it."""

import torch.nn.functional as F
from torch import Tensor, nn

from model.network import Features, Network


class Correlation(nn.Module):
    """`A = softmax_j(f1_i . f2_j / sqrt(C))`: row `i` is how pixel `i` resembles each `j`."""

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, num_classes, 1)
        self.conv2 = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Features `[B, D, h, w]` -> `A` `[B, hw, hw]`, rows summing to 1."""
        f1, f2 = self.conv1(x).flatten(2), self.conv2(x).flatten(2)
        return (f1.transpose(1, 2) @ f2 / f1.shape[1] ** 0.5).softmax(dim=-1)


def add_correlation_head(network: Network, channels: int) -> None:
    """Give `network` the modules `proj` and `corr`, named as in published checkpoints."""
    network.proj = nn.Sequential(
        nn.Conv2d(network.feature_channels[-1], channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Dropout2d(0.1),
    )
    network.corr = Correlation(channels, network.num_classes)


def correlate(network: Network, features: Features, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel propagation (CorrMatch, section 3.2): `z_corr[c, j] = sum_i logits[c, i] A[i, j]`.

    Of images with these `features`, `logits` `[B, C, H, W]` (used without gradient); returns
    `z_corr` `[B, C, H, W]` and `A` `[B, hw, hw]` over the pixels of the deepest feature map.
    """
    (h, w), size = features[-1].shape[-2:], logits.shape[-2:]
    attention = network.get_submodule("corr")(network.get_submodule("proj")(features[-1]))
    values = F.interpolate(logits.detach(), (h, w), mode="bilinear", align_corners=True)
    propagated = (values.flatten(2) @ attention).unflatten(2, (h, w))
    return F.interpolate(propagated, size, mode="bilinear", align_corners=True), attention
