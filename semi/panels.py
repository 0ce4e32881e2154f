"""What methods show of unlabelled images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from semi.correlation import correlation_maps
from semi.pseudo_labels import cutmix, label_partner, label_view
from util.batch import Unlabeled
from util.panels import Heat, Labels, Marks, Panels, Photo


def consistency_panels(labeler: nn.Module, u: Unlabeled, tau: float | Tensor) -> Panels:
    """The weak view and its pseudo-label by `labeler`; each strong view and the labels that it
    shall learn."""
    own, partner = label_view(labeler, u), label_partner(labeler, u)
    panels: Panels = {
        "weak view": Photo(u["weak"]),
        "pseudo-label": Labels(own.label, own.valid),
        "confidence": Heat(own.conf * own.valid),
        "above the threshold": Labels(own.label, own.above(tau)),
    }
    for number, (strong, box) in enumerate(zip(u["strong"], u["box"], strict=True), start=1):
        mixed = cutmix(own, partner, box)
        panels[f"strong view {number}"] = Photo(strong, box)
        panels[f"label of strong view {number}"] = Labels(mixed.label, mixed.above(tau))
    return panels


def correlation_panels(images: Tensor, attention: Tensor, shape: Sequence[int]) -> Panels:
    """Three pixels of a map (h, w), along its diagonal, and how they correlate with all others:
    `attention` `[B, hw, hw]`, scaled as for regions."""
    quarters = torch.arange(1, 4, device=attention.device)
    rows, columns = (quarters * side // 4 for side in shape)
    pixels = rows * shape[1] + columns
    maps = correlation_maps(attention, pixels, shape, images.shape[-2:])
    marked = pixels.expand(len(images), -1)
    panels: Panels = {"three pixels": Photo(images, marks=Marks(marked, shape))}
    each = zip(maps.unbind(1), marked.split(1, dim=1), strict=True)
    for number, (share, pixel) in enumerate(each, start=1):
        panels[f"correlation with pixel {number}"] = Heat(share, Marks(pixel, shape))
    return panels
