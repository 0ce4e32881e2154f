"""Panels: pictures of unlabelled images that a method offers for visualisation.

A panel holds one picture for each of B images; `engine.visualize` draws it. Pixels of a feature map
are counted row by row, as correlations and rankings count them.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dataset.batch import Unlabeled
from semi.correlation import correlation_maps
from semi.pseudo_labels import cutmix, label_partner, label_view


class Marks(NamedTuple):
    """Pixels to mark."""

    pixels: Tensor
    """Pixel numbers, long `[B, M]`."""
    shape: Sequence[int]
    """Size (h, w) of the map that the numbers refer to; its corners are the picture's."""


class Photo(NamedTuple):
    """Images as networks see them."""

    image: Tensor
    """Normalised: float `[B, C, H, W]`."""
    box: Tensor | None = None
    """Box to outline: bool `[B, H, W]`."""
    marks: Marks | None = None


class Labels(NamedTuple):
    """Classes, in their colours."""

    label: Tensor
    """Long `[B, H, W]`."""
    shown: Tensor | None = None
    """Pixels to draw, the rest is grey: bool `[B, H, W]`."""


class Heat(NamedTuple):
    """Shares between 0 and 1, such as confidence."""

    share: Tensor
    """Float `[B, h, w]`."""
    marks: Marks | None = None


class Colours(NamedTuple):
    """Colours that stand for no class."""

    rgb: Tensor
    """Float `[B, 3, h, w]` between 0 and 1."""


Panels = dict[str, Photo | Labels | Heat | Colours]
"""Panels by title, in display order."""


def consistency_panels(labeler: nn.Module, u: Unlabeled, tau: float | Tensor) -> Panels:
    """Return panels of the weak view, its pseudo-label, and each strong view with its target."""
    own, partner = label_view(labeler, u), label_partner(labeler, u)
    panels: Panels = {
        "weak view": Photo(u["weak"]),
        "pseudo-label": Labels(own.label, own.valid),
        "confidence": Heat(own.conf * own.valid),
        "above the threshold": Labels(own.label, own.above(tau)),
        "decoder features": Colours(principal_colours(decoder_features(labeler, u["weak"]))),
    }
    for number, (strong, box) in enumerate(zip(u["strong"], u["box"], strict=True), start=1):
        mixed = cutmix(own, partner, box)
        panels[f"strong view {number}"] = Photo(strong, box)
        panels[f"label of strong view {number}"] = Labels(mixed.label, mixed.above(tau))
    return panels


def correlation_panels(images: Tensor, correlation: Tensor, shape: Sequence[int]) -> Panels:
    """Return panels of three pixels on the diagonal of a map (h, w) and their correlation with all
    others: `correlation` `[B, hw, hw]`, scaled as for regions."""
    quarters = torch.arange(1, 4, device=correlation.device)
    rows, columns = (quarters * side // 4 for side in shape)
    pixels = rows * shape[1] + columns
    maps = correlation_maps(correlation, pixels, shape, images.shape[-2:])
    marked = pixels.expand(len(images), -1)
    panels: Panels = {"three pixels": Photo(images, marks=Marks(marked, shape))}
    each = zip(maps.unbind(1), marked.split(1, dim=1), strict=True)
    for number, (share, pixel) in enumerate(each, start=1):
        panels[f"correlation with pixel {number}"] = Heat(share, Marks(pixel, shape))
    return panels


def decoder_features(network: nn.Module, images: Tensor) -> Tensor:
    """Return the features `[B, D, h, w]` that the network's classifier turns into logits: the
    input of the convolution that runs last."""
    with captured_features(network) as captured:
        network(images)
    return captured[0]


@contextmanager
def captured_features(network: nn.Module) -> Iterator[list[Tensor]]:
    """Yield a list to which each forward pass inside appends its `decoder_features`."""
    captured: list[Tensor] = []
    latest = deque[Tensor](maxlen=1)
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: latest.append(inputs[0]))
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    hooks.append(network.register_forward_hook(lambda *_: captured.append(latest[0])))
    try:
        yield captured
    finally:
        for hook in hooks:
            hook.remove()


def principal_colours(features: Tensor) -> Tensor:
    """Return the first three principal components of `[B, D, h, w]` as RGB in [0, 1].

    The components are those of all pixels of the batch, so equal colours mean alike features in all
    its images. 0 and 1 are two standard deviations from the mean; the largest weight of a component
    is positive.
    """
    b, d, h, w = features.shape
    # Values that are not finite count as 0.
    pixels = features.float().nan_to_num(0, 0, 0).permute(0, 2, 3, 1).reshape(-1, d)
    pixels = pixels - pixels.mean(0)
    with torch.autocast(features.device.type, enabled=False):
        variance, axes = torch.linalg.eigh(pixels.T @ pixels / len(pixels))
        count = min(d, 3)
        variance, axes = variance.flip(0)[:count], axes.flip(1)[:, :count]
        axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
        components = pixels @ axes
    shares = 0.5 + components / (4 * variance.clamp(min=1e-12).sqrt())
    shares = F.pad(shares, (0, 3 - count), value=0.5).clamp(0, 1)
    return shares.view(b, h, w, 3).permute(0, 3, 1, 2)
