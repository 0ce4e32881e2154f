"""The geometry of weak views, as the config names it."""

from collections.abc import Callable
from functools import partial

import numpy as np

from dataset.transforms.rotate import Rotation, draw_rotation
from dataset.transforms.weak import Geometry, draw_geometry
from util.config.data import Data


def weak_geometry(
    data: Data,
) -> Callable[[np.random.Generator, tuple[int, int], int], Geometry | Rotation]:
    """Return the function that draws the geometry of a weak view, for an image size and a crop."""
    if data.geometry == "rotate_resize":
        return draw_rotation
    return partial(draw_geometry, scale=data.scale)
