"""Base classes of networks: an encoder, whose features a decoder turns into logits."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from util.errors import UserError
from util.numbers import ceil_div

Features = list[Tensor]


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize bilinearly with aligned corners, as all networks do."""
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=True)


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode; restore the mode of each of its parts afterwards, as some (a
    locked backbone, frozen batch norms, a teacher) are always in eval mode."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def eval_no_grad(network: nn.Module) -> Iterator[None]:
    """Run a network in eval mode without gradients; restore the mode of each part afterwards."""
    try:
        with eval_mode(network), torch.no_grad():
            yield
    finally:
        # Under autocast, torch (2.6) would reuse the weights that were cast here, without gradient,
        # in the training's forward pass.
        torch.clear_autocast_cache()


class Network(nn.Module):
    """Encoder and decoder: `model(x)` returns logits `[B, C, H, W]` at the size of `x`.

    A subclass owns `self.backbone` and defines `encode`, `classify` and, for a module between the
    two, `context`; the last feature map is the deepest, with `feature_channels[-1]`. Parts of a
    method (a perturbation, the correlation head) are functions of the features in its step.
    """

    backbone: nn.Module
    feature_channels: Sequence[int]
    locked: bool = False
    """The backbone is frozen."""
    siamese: bool = False
    """Samples are pairs of images of one place; classes are kinds of change."""

    @property
    def size_multiple(self) -> int:
        """Number that must divide the sides of an image."""
        return getattr(self.backbone, "size_multiple", 1)

    @property
    def min_side(self) -> int:
        """Least side of an image; some backbones without padding (ConvNeXt, VGG) need more than one
        pixel."""
        return max(self.size_multiple, getattr(self.backbone, "min_side", 1))

    def encode(self, x: Tensor) -> Features:
        """Return feature maps of normalised images `[B, C, H, W]`, shallow to deep."""
        raise NotImplementedError

    def features(self, x: Tensor) -> Features:
        """Return feature maps of images; of pairs `[B, 2C, H, W]`, |A - B| of both dates' maps at
        every level (UniMatch, remote sensing)."""
        if not self.siamese:
            return self.encode(x)
        earlier, later = (self.encode(date) for date in x.chunk(2, 1))
        return [(a - b).abs() for a, b in zip(earlier, later, strict=True)]

    def context(self, features: Features) -> Features:
        """Return the features with context in the deepest map (DeepLab's ASPP)."""
        return features

    def classify(self, context: Features, size: Sequence[int]) -> Tensor:
        """Return logits `[B, C, *size]` of the output of `context`."""
        raise NotImplementedError

    def decode(self, features: Features, size: Sequence[int]) -> Tensor:
        """Return logits `[B, C, *size]` of feature maps."""
        return self.classify(self.context(features), size)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.features(x), x.shape[-2:])

    def lock_backbone(self) -> None:
        """Freeze the backbone: no gradients, no activations kept, always in eval mode."""
        self.locked = True
        self.backbone.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Network":
        super().train(mode)
        if self.locked:
            self.backbone.eval()
        return self

    def check_crop(self, crop_size: int) -> None:
        """Raise `UserError` for a crop size that the network cannot be trained on."""
        below = crop_size - crop_size % self.size_multiple
        if below != crop_size:
            fitting_sizes = [size for size in (below, below + self.size_multiple) if size]
            cause = f"the backbone takes multiples of {self.size_multiple} pixels"
            raise crop_size_error(crop_size, fitting_sizes, cause)

    def check_batch(self, num_images: int) -> None:
        """Raise `UserError` for a number of images (of all processes that share batch statistics)
        that one forward pass in train mode cannot take."""


class PoolingNetwork(Network):
    """Base class of DeepLabv3+ and PSPNet, which pool a CNN's deepest map over large regions."""

    def encode(self, x: Tensor) -> Features:
        maps = self.backbone(x)
        # Some backbones of timm have the channels innermost.
        innermost = getattr(self.backbone, "output_fmt", None) == "NHWC"
        return [f.permute(0, 3, 1, 2) for f in maps] if innermost else list(maps)

    def check_crop(self, crop_size: int) -> None:
        super().check_crop(crop_size)
        if crop_size < 33:
            least = ceil_div(33, self.size_multiple) * self.size_multiple
            raise crop_size_error(
                crop_size, [least], "the network needs more than one 32-pixel cell"
            )

    def check_batch(self, num_images: int) -> None:
        if num_images < 2:
            raise UserError(
                "batch_size or micro_batch: found a forward pass of 1 image; the batch norm of the "
                "pooled maps needs 2. Fix: give each process 2 or more images per forward pass"
            )


def crop_size_error(crop_size: int, fitting_sizes: Sequence[int], cause: str) -> UserError:
    """Return the error of `check_crop`."""
    fits = " or ".join(map(str, fitting_sizes))
    return UserError(f"crop_size: found {crop_size}, but {cause}. Fix: use {fits}")
