"""Weak augmentation: random scale, crop and flip of an image and its mask together.

Parameters are drawn first, then applied, so that any image of a sample shares the geometry.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dataset.transforms.rotate import Rotation, draw_rotation
from util.config.data import Data
from util.config.types import IGNORE

SCALE = (0.5, 2.0)
"""UniMatch's for natural images."""
P_FLIP = 0.5


class Geometry(NamedTuple):
    """A crop of a resized image.

    The image is resized to `size` (width, height); the crop's top left corner is at `corner`
    (x, y). The part of the crop beyond the image is padding, right and below.
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

    def image(self, image: np.ndarray) -> Tensor:
        """Return `[crop, crop, C]` of an image `[H, W, C]`, uint8 or float32; black in the padding.

        Resizes only the pixels that the crop keeps. Torch's filter equals Pillow's up to a grey
        level, but is vectorised; a scale that leaves the size unchanged counts as 1.
        """
        (across, down), (kept_w, kept_h) = _spans(image.shape[1::-1], self), self.inside
        seen = image[down.first : down.end, across.first : across.end].copy()
        # Torch's filter is fastest in the channels-last format.
        pixels = torch.from_numpy(seen)[None].permute(0, 3, 1, 2)
        # Slightly more than the scale, as rounding errors would reduce the size by a pixel.
        scale = (1 + 1e-9) / down.scale, (1 + 1e-9) / across.scale
        resized = F.interpolate(pixels, scale_factor=scale, mode="bilinear", antialias=True)
        kept = resized[0].permute(1, 2, 0)[down.before :, across.before :][:kept_h, :kept_w]
        return _padded_and_flipped(kept, self, fill=0)

    def mask(self, mask: Image.Image) -> Tensor:
        """Return class indices `[crop, crop]`, uint8; 255 in the padding."""
        spans, inside = _spans(mask.size, self), self.inside
        left, top = (s.first + s.before * s.scale for s in spans)
        right, below = (
            min(s.first + (s.before + kept) * s.scale, side)
            for s, kept, side in zip(spans, inside, mask.size, strict=True)
        )
        kept = mask.resize(inside, Image.Resampling.NEAREST, (left, top, right, below))
        return _padded_and_flipped(torch.from_numpy(np.array(kept)), self, fill=IGNORE)

    def padding(self) -> Tensor:
        """Return the padding, bool `[crop, crop]`."""
        kept_w, kept_h = self.inside
        return _padded_and_flipped(torch.zeros(kept_h, kept_w, dtype=torch.bool), self, fill=True)


def weak_geometry(
    data: Data,
) -> Callable[[np.random.Generator, tuple[int, int], int], Geometry | Rotation]:
    """Return the function that draws the geometry of a weak view, for an image size and a crop."""
    if data.geometry == "rotate_resize":
        return draw_rotation
    return partial(draw_geometry, scale=data.scale)


def draw_geometry(
    rng: np.random.Generator,
    size: tuple[int, int],
    crop: int,
    scale: tuple[float, float] = SCALE,
) -> Geometry:
    """Draw a long side uniform in `scale` times the original's, a uniform position, and a flip."""
    w, h = size
    low, high = (int(max(w, h) * factor) for factor in scale)
    long = int(rng.integers(low, high, endpoint=True))
    if h > w:
        w, h = int(w * long / h + 0.5), long
    else:
        w, h = long, int(h * long / w + 0.5)
    w, h = max(w, 1), max(h, 1)
    x = int(rng.integers(max(w - crop, 0), endpoint=True))
    y = int(rng.integers(max(h - crop, 0), endpoint=True))
    return Geometry((w, h), (x, y), crop, bool(rng.random() < P_FLIP))


class Span(NamedTuple):
    """The part of the original that a crop needs along one side."""

    first: int
    """The pixel to cut at, and where resizing begins."""
    end: int
    """The pixel up to which the resizing filter sees."""
    before: int
    """Pixels of the resized part before the crop."""
    scale: float
    """Pixels of the original per resized one."""


def _spans(original: tuple[int, int], geometry: Geometry) -> list[Span]:
    """Return the spans of width and height in an original of this size."""
    sides = zip(geometry.corner, geometry.inside, geometry.size, original, strict=True)
    return [_span(*side) for side in sides]


def _span(corner: int, kept: int, size: int, original: int) -> Span:
    """Return the span for `kept` pixels from `corner` on, of `original` resized to `size`.

    Resizing starts at a whole pixel of the original: of 16 candidates, the one closest before a
    whole pixel of the resized image, so the crop shifts by a small fraction of a pixel only (at
    scales near 1, by less than a pixel).
    """
    scale = original / size
    margin = math.ceil(max(scale, 1))
    last = max(corner * original // size - margin, 0)
    first = min(range(max(last - 15, 0), last + 1), key=lambda start: -start * size % original)
    before = corner + -first * size // original
    end = first + math.ceil((before + kept) * scale) + margin + 1
    return Span(first, min(end, original), before, scale)


def _padded_and_flipped(kept: Tensor, geometry: Geometry, fill: int) -> Tensor:
    """Pad the kept part `[h, w, ...]` on the right and below, then flip it if drawn so."""
    (h, w), crop = kept.shape[:2], geometry.crop
    if h < crop or w < crop:
        padded = kept.new_full((crop, crop, *kept.shape[2:]), fill)
        padded[:h, :w] = kept
        kept = padded
    return kept.flip(1) if geometry.flip else kept.contiguous()
