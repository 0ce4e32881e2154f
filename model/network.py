"""What every network is: an encoder whose features a decoder turns into logits."""

from collections.abc import Sequence

from torch import Tensor, nn

from util.errors import UserError

Features = list[Tensor]


class Network(nn.Module):
    """`model(x)` is `[B, C, H, W]` logits at the size of `x`, always.

    A subclass owns `self.backbone` and defines `features` and `decode`; the last feature map is
    the deepest, `feature_channels[-1]` wide.  What a method needs beyond (a perturbation, the
    correlation head) is a function of the features, visible in its step.
    """

    backbone: nn.Module
    feature_channels: Sequence[int]
    num_classes: int

    def features(self, x: Tensor) -> Features:
        """Feature maps of normalised images `[B, 3, H, W]`, shallow to deep."""
        raise NotImplementedError

    def decode(self, features: Features, size: Sequence[int]) -> Tensor:
        """Logits `[B, C, *size]` of feature maps."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.features(x), x.shape[-2:])

    def check_crop(self, crop_size: int) -> None:
        """Raise `UserError` for a crop size that the network cannot be trained on."""

    def check_batch(self, images: int) -> None:
        """Raise `UserError` for a number of images (of all processes that share batch statistics)
        that one train-mode forward cannot take."""


def unfit_crop(crop_size: int, nearest: Sequence[int], reason: str) -> UserError:
    """The error of `check_crop`."""
    fits = " or ".join(map(str, nearest))
    return UserError(f"crop_size: found {crop_size}, but {reason}; use {fits}")
