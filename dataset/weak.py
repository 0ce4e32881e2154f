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
    of it (x, y), and what the crop has beyond the image is padding, right and below.
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


def weak_image(image: Image.Image, geometry: Geometry) -> Tensor:
    """`[crop, crop, 3]`, uint8; black in the padding.

    Resizes only what the crop keeps.  Torch's filter is Pillow's to a grey level, but vectorised; a
    scale that leaves the size of what it gets as it is counts as 1.
    """
    (w, h), (x, y), (kept_w, kept_h) = geometry.size, geometry.corner, geometry.inside
    left, x, right, across = _span(x, kept_w, w, image.width)
    top, y, below, down = _span(y, kept_h, h, image.height)
    seen = np.array(image.crop((left, top, right, below)))
    # Channels innermost, the form in which torch's filter is fastest.
    pixels = torch.from_numpy(seen)[None].permute(0, 3, 1, 2)
    # A hair more than the scale, as a size that is not quite whole would be rounded down.
    scale = (1 + 1e-9) / down, (1 + 1e-9) / across
    resized = F.interpolate(pixels, scale_factor=scale, mode="bilinear", antialias=True)
    kept = resized[0].permute(1, 2, 0)[y : y + kept_h, x : x + kept_w]
    return _place(kept, geometry, fill=0)


def _span(corner: int, kept: int, size: int, original: int) -> tuple[int, int, int, float]:
    """Along one side: from which pixel of the original to which the filter has to see, for `kept`
    pixels from `corner` on of the image resized to `size`; how many come before them; the scale.

    Resizing begins at a whole pixel of the original; of 16 the one is taken after which a whole
    pixel of the resized image follows soonest, so that the crop lies where it was drawn: moved back
    by a small fraction of a pixel, at scales near 1 by less than one.
    """
    scale = original / size
    margin = math.ceil(max(scale, 1))
    last = max(corner * original // size - margin, 0)
    first = min(range(max(last - 15, 0), last + 1), key=lambda start: -start * size % original)
    before = corner + -first * size // original
    end = first + math.ceil((before + kept) * scale) + margin + 1
    return first, before, min(end, original), scale


def weak_mask(mask: Image.Image, geometry: Geometry) -> Tensor:
    """Of class indices, `[crop, crop]`, uint8; 255 in the padding."""
    (w, h), (x, y), (kept_w, kept_h) = geometry.size, geometry.corner, geometry.inside
    left, x, _, across = _span(x, kept_w, w, mask.width)
    top, y, _, down = _span(y, kept_h, h, mask.height)
    right, below = left + (x + kept_w) * across, top + (y + kept_h) * down
    box = (left + x * across, top + y * down, min(right, mask.width), min(below, mask.height))
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
