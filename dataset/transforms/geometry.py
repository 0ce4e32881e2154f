"""The weak augmentations by name: drawn for an image's size, then applied to image and mask."""

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
    """A weak augmentation: how it is drawn, and what it makes of an image, a mask and nothing."""

    draw: Callable[[np.random.Generator, tuple[int, int], int], Any]
    image: Callable[[np.ndarray, Any], Tensor]
    mask: Callable[[Image.Image, Any], Tensor]
    padding: Callable[[Any], Tensor]


GEOMETRIES = {
    "scale_crop": Weak(draw_geometry, weak_image, weak_mask, padding),
    "rotate_resize": Weak(draw_rotation, rotated_image, rotated_mask, no_padding),
}
"""By the config's `data.geometry`."""


def weak_augmentation(data: Data) -> Weak:
    """The config's, with the scales of its `data.scale`."""
    weak = GEOMETRIES[data.geometry]
    if data.geometry == "scale_crop":
        return weak._replace(draw=partial(draw_geometry, scale=data.scale))
    return weak
