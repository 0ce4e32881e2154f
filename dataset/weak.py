"""Weak augmentation: random scale, crop and flip of an image and its mask together.

Parameters are drawn first, then applied, so that any image of a sample shares the geometry.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

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


def apply_geometry(
    image: Image.Image, geometry: Geometry, resample: Image.Resampling, fill: int
) -> np.ndarray:
    """`[crop, crop]` or `[crop, crop, 3]`, uint8; `fill` in the padding.

    Resizes only what the crop keeps, which equals resizing the whole: the box may have fractional
    corners, and the filter still sees the pixels beyond them.
    """
    (w, h), (x, y), (kept_w, kept_h) = geometry.size, geometry.corner, geometry.inside
    sx, sy = image.width / w, image.height / h
    right, below = min((x + kept_w) * sx, image.width), min((y + kept_h) * sy, image.height)
    kept = np.asarray(image.resize((kept_w, kept_h), resample, box=(x * sx, y * sy, right, below)))
    out = np.full((geometry.crop, geometry.crop, *kept.shape[2:]), fill, dtype=np.uint8)
    out[:kept_h, :kept_w] = kept
    return np.ascontiguousarray(out[:, ::-1]) if geometry.flip else out


def weak_image(image: Image.Image, geometry: Geometry) -> np.ndarray:
    """`[3, crop, crop]`, uint8; black in the padding."""
    out = apply_geometry(image, geometry, Image.Resampling.BILINEAR, fill=0)
    return np.ascontiguousarray(out.transpose(2, 0, 1))


def weak_mask(mask: Image.Image, geometry: Geometry) -> np.ndarray:
    """`[crop, crop]`, uint8; 255 in the padding."""
    return apply_geometry(mask, geometry, Image.Resampling.NEAREST, fill=IGNORE)


def padding(geometry: Geometry) -> np.ndarray:
    """`[crop, crop]`, bool; True in the padding."""
    kept_w, kept_h = geometry.inside
    out = np.ones((geometry.crop, geometry.crop), dtype=bool)
    out[:kept_h, :kept_w] = False
    return np.ascontiguousarray(out[:, ::-1]) if geometry.flip else out
