"""Colours of classes: the dataset's own, or distinct ones."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from util.config.data import Data

Colour = tuple[int, int, int]

IGNORE_COLOUR: Colour = (224, 224, 192)
UNKNOWN_COLOUR: Colour = (255, 0, 255)
"""Colour of mask values without a class."""
BACKGROUND_COLOUR: Colour = (0, 0, 0)
BACKGROUNDS = ("background", "_background_", "void", "unchanged", "rest", "other")
"""Names of the background class, by preference; overlays leave it as photographed."""
FIRST_COLOURS: tuple[Colour, ...] = (
    (250, 140, 0),  # orange
    (105, 220, 255),  # sky blue
    (135, 90, 175),  # purple
    (255, 255, 0),  # yellow
    (205, 45, 15),  # vermilion
    (70, 240, 110),  # bluish green
    (20, 70, 200),  # blue
    (50, 0, 100),  # indigo
)
"""Colours that deuteranopes distinguish from each other, vegetation and grey, in the order of hues
of Okabe and Ito, "Color universal design", 2008."""
SHADES = 18  # candidate values of each of red, green and blue


def palette(data: Data) -> list[Colour]:
    """Return the colour of each class: the config's, else distinct ones, black for background."""
    if data.palette is not None:
        return data.palette
    found = [*distinct_colours(len(data.classes))]
    if (rest := background_of(data)) is not None:
        found = [*found[:rest], BACKGROUND_COLOUR, *found[rest:-1]]
    return found


def background_of(data: Data) -> int | None:
    """Return the index of the background: the config's `data.background`, else by name."""
    if data.background is not None:
        return data.classes.index(data.background)
    return background(data.classes)


def background(classes: Sequence[str]) -> int | None:
    """Return the index of the background class by its name."""
    names = [name.lower() for name in classes]
    return next((names.index(name) for name in BACKGROUNDS if name in names), None)


@lru_cache
def distinct_colours(count: int) -> tuple[Colour, ...]:
    """Return `FIRST_COLOURS`, then colours as far as possible from earlier ones, greys and ignore.

    The further ones are by the sequential search of Glasbey et al., "Colour displays for
    categorical images", Color Research and Application 2007: Euclidean distance in CIELAB,
    lightness 30 to 90.
    """
    steps = np.linspace(0, 255, SHADES).round()
    colours = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = cielab(colours)
    visible = (lab[:, 0] >= 30) & (lab[:, 0] <= 90)
    colours, lab = colours[visible].astype(int), lab[visible]
    taken = [(0, 0, 0), (128, 128, 128), (255, 255, 255), IGNORE_COLOUR, UNKNOWN_COLOUR]
    taken += FIRST_COLOURS
    distance = np.linalg.norm(lab[:, None] - cielab(np.array(taken)), axis=-1).min(1)
    chosen = [*FIRST_COLOURS[:count]]
    while len(chosen) < count:
        best = int(distance.argmax())
        red, green, blue = colours[best].tolist()
        chosen.append((red, green, blue))
        distance = np.minimum(distance, np.linalg.norm(lab - lab[best], axis=1))
    return tuple(chosen)


def cielab(colours: np.ndarray) -> np.ndarray:
    """Convert sRGB `[N, 3]` in [0, 255] to CIELAB under D65 (IEC 61966-2-1 and CIE 15)."""
    share = colours / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    x = linear @ to_xyz.T / to_xyz.sum(1)
    f = np.where(x > (6 / 29) ** 3, np.cbrt(x), x * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)
