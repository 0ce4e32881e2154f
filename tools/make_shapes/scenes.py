"""Scenes of generated shapes on clutter; colour and texture carry no class information.

All shapes and clutter share the same random colours and textures; the background is darker. Scenes
are drawn with numpy from signed distances; a seed always gives the same scenes.

Points of the plane are complex numbers: `abs` measures, a product rotates and scales. A form maps
points z, in units of its radius and centred on it, to signed distances in that unit, negative
inside.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from util.config.types import IGNORE

Form = Callable[[np.ndarray], np.ndarray]


def _star(points: int, dent: float, reach: float) -> Form:
    """A star with its tips at radius `reach` and its dents at `dent` times that; a triangle is the
    one of three points whose dents are the midpoints of its sides.

    Its mirror symmetries fold the plane onto one wedge, in which the outline is a single segment.
    """
    half = np.pi / points
    edge = reach * (dent * np.exp(1j * half) - 1)

    def form(z: np.ndarray) -> np.ndarray:
        angle = np.abs((np.angle(z) + half) % (2 * half) - half)
        along = (np.abs(z) * np.exp(1j * angle) - reach) / edge  # 0 at the tip, 1 at the dent
        return abs(edge) * np.copysign(np.abs(along - along.real.clip(0, 1)), -along.imag)

    return form


def _cross(z: np.ndarray) -> np.ndarray:
    """A plus sign, folded onto the one arm that runs along the real axis."""
    x, y = np.abs(z.real), np.abs(z.imag)
    right, up = np.maximum(x, y) - 1.05, np.minimum(x, y) - 0.36
    return np.hypot(right.clip(0), up.clip(0)) + np.maximum(right, up).clip(None, 0)


# Pointed forms reach beyond their radius, so that area carries no class information either.
REACH = 1.35
SHAPES: dict[str, Form] = {
    "disc": lambda z: np.abs(z) - 0.95,
    "triangle": _star(3, 0.5, REACH),
    "cross": _cross,
    "ring": lambda z: np.abs(np.abs(z) - 0.8) - 0.25,
    "star": _star(5, 0.45, REACH),
}
CLUTTER: dict[str, Form] = {
    "line": lambda z: np.abs(z - z.real.clip(-1, 1)) - 0.07,
    "speck": lambda z: np.abs(z.real + 1.5j * z.imag) - 0.15,
}
FORMS = SHAPES | CLUTTER
CLASSES = ("background", *SHAPES)
SIMPLE = ("background", "disc", "cross", "ring")
"""Classes of simple scenes, which have no clutter."""
PALETTE = (
    (38, 42, 54),
    (239, 100, 97),
    (104, 190, 112),
    (70, 175, 215),
    (166, 124, 222),
    (240, 140, 190),
)
SIMPLE_PALETTE = (PALETTE[0], PALETTE[1], PALETTE[3], PALETTE[5])
"""Colours of `SIMPLE`, as in configs/quickstart.yaml."""

# A texture maps points z, in periods of its pattern, to tones in [-1, 1] of mean near 0.
Texture = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def _wave(z: np.ndarray) -> np.ndarray:
    """A plane wave along the real axis, of period 1."""
    return np.sin(2 * np.pi * z.real)


def _clouds(rng: np.random.Generator, z: np.ndarray) -> np.ndarray:
    """Smooth noise: a few long plane waves of random direction and length."""
    waves = np.exp(2j * np.pi * rng.random(5)) * rng.uniform(0.15, 0.6, 5)
    return np.sum([_wave(z * wave) for wave in waves], axis=0) / 2.5


def _speckle(rng: np.random.Generator, z: np.ndarray) -> np.ndarray:
    """Random tones on a lattice of four cells a period, repeated after 16 periods."""
    tones = rng.uniform(-1, 1, (64, 64))
    return tones[np.floor(4 * z.real).astype(int) % 64, np.floor(4 * z.imag).astype(int) % 64]


def _gradient(_: np.random.Generator, z: np.ndarray) -> np.ndarray:
    """One ramp across all points, whatever the period."""
    return 2 * (z.real - z.real.min()) / np.ptp(z.real) - 1


TEXTURES: dict[str, Texture] = {
    "clouds": _clouds,
    "stripes": lambda _, z: _wave(z),
    "ripples": lambda _, z: _wave(z + 0.2 * _wave(1j * z / 2)),
    "checker": lambda _, z: _wave(z) * _wave(1j * z),
    "speckle": _speckle,
    "gradient": _gradient,
}


def _random_rotation(rng: np.random.Generator) -> complex:
    """Draw a rotation: a complex number of modulus 1."""
    return np.exp(2j * np.pi * rng.random())


def _spread_points(rng: np.random.Generator, count: int, dims: int, tries: int) -> np.ndarray:
    """Draw points [count, dims] of the unit cube, each the farthest of some `tries`."""
    points = rng.random((1, dims))
    while len(points) < count:
        drawn = rng.random((tries, dims))
        gaps = np.linalg.norm(drawn[:, None] - points, axis=2).min(axis=1)
        points = np.vstack([points, drawn[gaps.argmax()]])
    return points


class _Scene:
    """A scene in the making, painted back to front; lengths are in sides of the image.

    Args:
        size: the side, in pixels.
        colour: mean colour of the ground, RGB in [0, 1], as all colours here.
    """

    def __init__(self, rng: np.random.Generator, size: int, colour: np.ndarray):
        self.rng, self.size = rng, size
        rows, cols = (np.mgrid[:size, :size] + 0.5) / size
        self.grid = cols + 1j * rows  # [H, W], the centres of the pixels
        self.image = self._textured(self.grid, colour)  # float32 [3, H, W]
        self.labels = np.zeros((size, size), np.uint8)

    def paint(
        self, name: str, centre: complex, colour: np.ndarray, label: int | None = None
    ) -> None:
        """Add one of FORMS, of random radius, rotation and texture; `label`: its mark, if any."""
        radius = self.rng.uniform(0.16, 0.27)
        reach = REACH * radius + 1 / self.size  # one more pixel for the smooth edge
        rows, cols = (
            slice(max(0, int(self.size * (middle - reach))), int(self.size * (middle + reach)) + 1)
            for middle in (centre.imag, centre.real)
        )
        z = self.grid[rows, cols] - centre
        distance = (
            radius * self.size * FORMS[name](z * _random_rotation(self.rng) / radius)
        )  # in pixels
        cover = (0.5 - distance).clip(0, 1).astype(np.float32)
        canvas = self.image[:, rows, cols]
        canvas += cover * (self._textured(z, colour) - canvas)
        if label is not None:
            self.labels[rows, cols][distance < 0] = label

    def _textured(self, z: np.ndarray, colour: np.ndarray) -> np.ndarray:
        """Draw a texture, float32 [3, h, w], around a mean colour, at the points z [h, w]."""
        rng = self.rng
        texture = TEXTURES[rng.choice(list(TEXTURES))]
        period, somewhere = rng.uniform(0.05, 0.15), 100 * rng.random() * _random_rotation(rng)
        tones = texture(rng, z * _random_rotation(rng) / period + somewhere)
        tones = (tones * rng.uniform(1, 3)).clip(-1, 1)  # from soft to crisp
        swing = rng.normal(size=3)
        swing *= rng.uniform(0.03, 0.12) / np.linalg.norm(swing)
        mean, span = (part.astype(np.float32)[:, None, None] for part in (colour, swing))
        return mean + span * tones.astype(np.float32)

    def photograph(self) -> np.ndarray:
        """Return the image, uint8 [H, W, 3], with uneven light, blur and noise."""
        rng = self.rng
        slope = (self.grid * _random_rotation(rng)).real
        light = 1 + rng.uniform(0, 0.5) * (slope - slope.mean())
        image = self.image * light.astype(np.float32)
        image = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="edge")
        side = rng.uniform(0, 0.25)  # weight of each neighbour in the blur
        image = (1 - 2 * side) * image[:, 1:-1] + side * (image[:, :-2] + image[:, 2:])
        image = (1 - 2 * side) * image[..., 1:-1] + side * (image[..., :-2] + image[..., 2:])
        image += rng.uniform(0, 0.06) * rng.standard_normal(image.shape, np.float32)
        image = (255 * image.clip(0, 1)).round().astype(np.uint8)
        return np.ascontiguousarray(image.transpose(1, 2, 0))


def without_boundaries(labels: np.ndarray) -> np.ndarray:
    """Return labels, uint8 [H, W], with IGNORE on both sides of every boundary."""
    mask = labels.copy()
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    mask[:, 1:][across] = mask[:, :-1][across] = IGNORE
    mask[1:][down] = mask[:-1][down] = IGNORE
    return mask


def render_scene(
    rng: np.random.Generator, size: int, classes: tuple[str, ...] = CLASSES
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scene: its image, RGB uint8 [size, size, 3], and its mask, uint8 [size, size].

    The mask holds positions in `classes` (CLASSES or SIMPLE), and IGNORE within a pixel of a class
    boundary.
    """
    names = list(rng.choice(classes[1:], rng.integers(2, 5)))
    if classes != SIMPLE:
        names += ["line"] * rng.integers(1, 4) + ["speck"] * rng.integers(2, 6)
    # Spread-out places keep most shapes visible, spread-out colours distinct. They are shuffled,
    # as later ones, which avoid the others, are more extreme.
    places = 0.08 + 0.84 * _spread_points(rng, len(names), 2, tries=4)
    colours = _colours(rng, len(names))
    scene = _Scene(rng, size, rng.uniform(0.05, 0.3, 3))
    for i in rng.permutation(len(names)):
        label = classes.index(names[i]) if names[i] in SHAPES else 0
        scene.paint(names[i], complex(*places[i]), colours[i], label)
    return scene.photograph(), without_boundaries(scene.labels)


class _Figure(NamedTuple):
    """A shape of a pair of scenes, equal at both dates."""

    name: str
    centre: complex
    colour: np.ndarray
    seed: int
    """Seed of its radius, rotation and texture."""


def render_pair(rng: np.random.Generator, size: int) -> tuple[np.ndarray, ...]:
    """Draw a place at two dates: two images, RGB uint8 [size, size, 3], and two masks, uint8
    [size, size], with IGNORE within a pixel of an outline.

    The first mask is 1 where a shape came, went or became another one, else 0. The second mask is
    the kind of change: 1 where one date shows a shape and the other background, 2 where the dates
    show different shapes. Light, tint, blur, noise, clutter and a shift by a pixel differ between
    dates and are not changes.
    """
    count = int(rng.integers(4, 8))
    places, colours = (0.08 + 0.84 * _spread_points(rng, count, 2, tries=4), _colours(rng, count))
    seeds = rng.integers(2**32, size=(2, count))
    dates: list[list[_Figure]] = [[], []]
    for i in range(count):
        names = rng.choice(list(SHAPES), 2, replace=False)
        old, new = (
            _Figure(name, complex(*places[i]), colours[i], seed)
            for name, seed in zip(names, seeds[:, i], strict=True)
        )
        fate = rng.choice(["stays", "came", "went", "became another"], p=[0.55, 0.15, 0.15, 0.15])
        if fate != "came":
            dates[0].append(old)
        if fate != "went":
            dates[1].append(old if fate == "stays" else new)
    ground, ground_seed = rng.uniform(0.05, 0.3, 3), rng.integers(2**32)
    marks = {figure.seed: mark for mark, figure in enumerate([*dates[0], *dates[1]], start=1)}
    images, labels = [], []
    for figures in dates:
        scene = _Scene(np.random.default_rng(ground_seed), size, ground)
        for name, centre, colour, seed in figures:
            scene.rng = np.random.default_rng(seed)
            scene.paint(name, centre, colour, marks[seed])
        scene.rng = rng
        for name in ["line"] * rng.integers(1, 4) + ["speck"] * rng.integers(2, 6):
            scene.paint(name, complex(*rng.random(2)), rng.uniform(0.4, 0.9, 3))
        scene.image *= rng.uniform(0.8, 1.2, (3, 1, 1)).astype(np.float32)
        images.append(_moved(rng, scene.photograph()))
        labels.append(scene.labels)
    changed = (labels[0] != labels[1]).astype(np.uint8)
    kinds = changed * (1 + (np.minimum(*labels) > 0)).astype(np.uint8)
    return images[0], images[1], without_boundaries(changed), without_boundaries(kinds)


def _colours(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw distinct colours [count, 3]."""
    return rng.permutation(0.4 + 0.5 * _spread_points(rng, count, 3, tries=8))


def _moved(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Shift an image by at most a pixel along each side."""
    down, across = rng.integers(3, size=2)
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    return padded[down : down + image.shape[0], across : across + image.shape[1]].copy()
