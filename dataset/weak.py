"""Weak augmentation: random scale, crop and flip of an image and its mask together.

Parameters are drawn first, then applied, so that any image of a sample shares the geometry.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from util.config import IGNORE


class Geometry(NamedTuple):
    """A crop of a resized image.

    The image is resized to `size` (width, height); the crop's top left corner lies at `corner`
    of it (x, y), moved back to a whole pixel of the original, and what the crop has beyond the
    image is padding, right and below.
    """

    size: tuple[int, int]
    corner: tuple[int, int]
    crop: int
    flip: bool

    @property
    def inside(self) -> tuple[int, int]:
        """Width and height of the part of the crop that shows the image."""
        (w, h), (x, y) = self.size, self.corner
        return min(self.crop, w - x), min(self.crop, h - y)


def draw_geometry(rng: np.random.Generator, size: tuple[int, int], crop: int) -> Geometry:
    """Long side uniform in [0.5, 2] times the original's, position uniform, flip p 0.5."""
    w, h = size
    long = int(rng.integers(int(max(w, h) * 0.5), int(max(w, h) * 2.0), endpoint=True))
    if h > w:
        w, h = int(w * long / h + 0.5), long
    else:
        w, h = long, int(h * long / w + 0.5)
    w, h = max(w, 1), max(h, 1)
    x = int(rng.integers(max(w - crop, 0), endpoint=True))
    y = int(rng.integers(max(h - crop, 0), endpoint=True))
    return Geometry((w, h), (x, y), crop, bool(rng.random() < 0.5))


def source_corner(size: tuple[int, int], geometry: Geometry) -> tuple[int, int]:
    """Where (x, y) in an original of `size` the crop begins: at a whole pixel, so that image and
    mask can be cut before they are resized."""
    (w, h), (x, y) = geometry.size, geometry.corner
    return x * size[0] // w, y * size[1] // h


def weak_image(image: Image.Image, geometry: Geometry) -> Tensor:
    """`[crop, crop, 3]`, uint8; black in the padding.

    Resizes only what the crop keeps.  Torch's filter is Pillow's to a grey level, but vectorised; a
    scale that leaves the size of the crop as it is counts as 1.
    """
    (left, top), (kept_w, kept_h) = source_corner(image.size, geometry), geometry.inside
    across, down = image.width / geometry.size[0], image.height / geometry.size[1]
    right = left + math.ceil(kept_w * across + max(across, 1))  # as far as the filter sees
    below = top + math.ceil(kept_h * down + max(down, 1))
    seen = image.crop((left, top, min(right, image.width), min(below, image.height)))
    # Channels innermost, the form in which torch's filter is fastest.
    pixels = torch.from_numpy(np.array(seen))[None].permute(0, 3, 1, 2)
    # A hair more than the scale, as a size that is not quite whole would be rounded down.
    scale = (1 + 1e-9) / down, (1 + 1e-9) / across
    resized = F.interpolate(pixels, scale_factor=scale, mode="bilinear", antialias=True)
    return _place(resized[0].permute(1, 2, 0)[:kept_h, :kept_w], geometry, fill=0)


def weak_mask(mask: Image.Image, geometry: Geometry) -> Tensor:
    """Of class indices, `[crop, crop]`, uint8; 255 in the padding."""
    (left, top), (kept_w, kept_h) = source_corner(mask.size, geometry), geometry.inside
    right = min(left + kept_w * mask.width / geometry.size[0], mask.width)
    below = min(top + kept_h * mask.height / geometry.size[1], mask.height)
    box = (left, top, right, below)
    kept = mask.resize((kept_w, kept_h), Image.Resampling.NEAREST, box)
    return _place(torch.from_numpy(np.array(kept)), geometry, fill=IGNORE)


def padding(geometry: Geometry) -> Tensor:
    """`[crop, crop]`, bool; True in the padding."""
    kept_w, kept_h = geometry.inside
    return _place(torch.zeros(kept_h, kept_w, dtype=torch.bool), geometry, fill=True)


def _place(kept: Tensor, geometry: Geometry, fill: int) -> Tensor:
    """What the crop keeps, `[h, w, ...]`, padded right and below, then flipped if it shall be."""
    (h, w), crop = kept.shape[:2], geometry.crop
    if h < crop or w < crop:
        padded = kept.new_full((crop, crop, *kept.shape[2:]), fill)
        padded[:h, :w] = kept
        kept = padded
    return kept.flip(1) if geometry.flip else kept.contiguous()
