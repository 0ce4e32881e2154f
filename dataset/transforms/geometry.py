"""Weak augmentations: drawn for an image size, then applied to image and mask."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from dataset.transforms.rotate import draw_rotation, no_padding, rotated_image, rotated_mask
from dataset.transforms.weak import draw_geometry, padding, weak_image, weak_mask
from util.config.data import Data


class Weak(NamedTuple):
    """A weak augmentation: functions that draw it, and apply it to an image, a mask and padding."""

    draw: Callable[[np.random.Generator, tuple[int, int], int], Any]
    image: Callable[[np.ndarray, Any], Tensor]
    mask: Callable[[Image.Image, Any], Tensor]
    padding: Callable[[Any], Tensor]


def weak_augmentation(data: Data) -> Weak:
    """Return the weak augmentation of a config."""
    if data.geometry == "rotate_resize":
        return Weak(draw_rotation, rotated_image, rotated_mask, no_padding)
    return Weak(partial(draw_geometry, scale=data.scale), weak_image, weak_mask, padding)
