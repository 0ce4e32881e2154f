"""Weak augmentation of medical slices: rotations and flips, then a plain resize to the crop
(UniMatch, medical). Every pixel is one of the original, of image and mask alike.
"""

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

P_QUARTERS = 0.5
P_ANGLE = 0.5  # without quarter turns
MAX_ANGLE = 20


class Rotation(NamedTuple):
    """Quarter turns and a flip along an axis of the image, or else an angle, or nothing; then a
    resize of the whole to a square of side `crop`."""

    crop: int
    quarters: int = 0
    axis: int | None = None
    """To flip: 0 rows, 1 columns."""
    angle: int = 0
    """Degrees."""

    def image(self, image: np.ndarray) -> Tensor:
        """Return `[crop, crop, C]` of an image `[H, W, C]`; black outside the image."""
        return torch.from_numpy(_rotated(image, self))

    def mask(self, mask: Image.Image) -> Tensor:
        """Return class indices `[crop, crop]`, uint8; class 0 outside, as published."""
        return torch.from_numpy(_rotated(np.asarray(mask), self))

    def padding(self) -> Tensor:
        """Return the padding, bool `[crop, crop]`: none, as the whole image is resized."""
        return torch.zeros(self.crop, self.crop, dtype=torch.bool)


def draw_rotation(rng: np.random.Generator, size: tuple[int, int], crop: int) -> Rotation:
    """Draw up to 3 quarter turns and a flip (p 0.5), else an angle in [-20, 20) (p 0.5); for any
    `size`."""
    if rng.random() < P_QUARTERS:
        return Rotation(crop, int(rng.integers(4)), int(rng.integers(2)))
    if rng.random() < P_ANGLE:
        return Rotation(crop, angle=int(rng.integers(-MAX_ANGLE, MAX_ANGLE)))
    return Rotation(crop)


def _rotated(pixels: np.ndarray, rotation: Rotation) -> np.ndarray:
    """Return `[crop, crop, ...]` of pixels `[H, W, ...]`."""
    pixels = np.rot90(pixels, rotation.quarters)
    if rotation.axis is not None:
        pixels = np.flip(pixels, rotation.axis)
    rows, columns = (_sampled_indices(side, rotation.crop) for side in pixels.shape[:2])
    if not rotation.angle:
        return np.ascontiguousarray(pixels[rows[:, None], columns])
    y, x, inside = _rotated_positions(rows, columns, pixels.shape[:2], rotation.angle)
    found = pixels[y, x]
    found[~inside] = 0
    return found


def _sampled_indices(side: int, crop: int) -> np.ndarray:
    """Return the indices of `side` pixels that `crop` pixels show; first and last coincide."""
    exact = np.arange(crop) * (side - 1) / max(crop - 1, 1)
    return np.floor(exact + 0.5).astype(np.intp)


def _rotated_positions(
    rows: np.ndarray, columns: np.ndarray, shape: tuple[int, ...], angle: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the image positions (y, x) for rows and columns of the rotated frame, and whether they
    are inside the image: `[rows, columns]` each."""
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    centre_y, centre_x = ((side - 1) / 2 for side in shape)
    dy, dx = rows[:, None] - centre_y, columns - centre_x
    y, x = cos * dy + sin * dx + centre_y, -sin * dy + cos * dx + centre_x
    inside = (y >= 0) & (y <= shape[0] - 1) & (x >= 0) & (x <= shape[1] - 1)
    y, x = (np.floor(np.where(inside, v, 0) + 0.5).astype(np.intp) for v in (y, x))
    return y, x, inside
