"""The demo dataset "shapes": textured scenes in which only form tells the class.

Background, shapes and clutter all take their colours and textures from the same random family, so
neither carries any information about the class. Scenes are drawn with numpy alone, from signed
distances: nothing is downloaded, and a seed always gives the same dataset.

Points of the plane are complex numbers: `abs` measures, a product rotates and scales. A form maps
points z, in units of its radius and centred on it, to signed distances in that unit, negative
inside.
"""

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from dataset.files import IGNORE
from util.errors import UserError

FORMAT = 1  # of the files on disk; raise it whenever the same arguments give other files
SPLITS = ("train", "val")  # a split's position here seeds its scenes

Form = Callable[[np.ndarray], np.ndarray]


def _star(points: int, dent: float, reach: float) -> Form:
    """A star with its tips at radius `reach` and its dents at `dent` times that.

    Its mirror symmetries fold the plane onto one wedge, in which the outline is a single segment.
    """
    half = np.pi / points
    edge = reach * (dent * np.exp(1j * half) - 1)

    def form(z: np.ndarray) -> np.ndarray:
        angle = np.abs((np.angle(z) + half) % (2 * half) - half)
        along = (np.abs(z) * np.exp(1j * angle) - reach) / edge  # 0 at the tip, 1 at the dent
        return abs(edge) * np.copysign(np.abs(along - along.real.clip(0, 1)), -along.imag)

    return form


def _polygon(sides: int, reach: float) -> Form:
    """A regular polygon: the star whose dents are the midpoints of its sides."""
    return _star(sides, np.cos(np.pi / sides), reach)


def _cross(z: np.ndarray) -> np.ndarray:
    """A plus sign, folded onto the one arm that runs along the real axis."""
    x, y = np.abs(z.real), np.abs(z.imag)
    right, up = np.maximum(x, y) - 1.05, np.minimum(x, y) - 0.36
    return np.hypot(right.clip(0), up.clip(0)) + np.maximum(right, up).clip(None, 0)


# Pointed shapes reach beyond their radius, so that a class does not show by its area either.
REACH = 1.35
SHAPES: dict[str, Form] = {
    "disc": lambda z: np.abs(z) - 0.95,
    "square": _polygon(4, 1.15),
    "triangle": _polygon(3, REACH),
    "cross": _cross,
    "ring": lambda z: np.abs(np.abs(z) - 0.8) - 0.25,
    "star": _star(5, 0.45, REACH),
}
CLUTTER: dict[str, Form] = {
    "line": lambda z: np.abs(z - z.real.clip(-1, 1)) - 0.07,
    "speck": lambda z: np.abs(z.real + 1.5j * z.imag) - 1,
}
CLASSES = ("background", *SHAPES)
PALETTE = (
    (38, 42, 54),
    (239, 100, 97),
    (247, 183, 72),
    (104, 190, 112),
    (70, 175, 215),
    (166, 124, 222),
    (240, 140, 190),
)

# A texture maps points z, in periods of its pattern, to tones in [-1, 1] of mean near 0.
Texture = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def _wave(z: np.ndarray) -> np.ndarray:
    return np.sin(2 * np.pi * z.real)


def _clouds(rng: np.random.Generator, z: np.ndarray) -> np.ndarray:
    """Smooth noise: a few long plane waves of random direction, length and phase."""
    waves = np.exp(2j * np.pi * rng.random(5)) * rng.uniform(0.15, 0.6, 5)
    return (
        sum(_wave(z * wave + phase) for wave, phase in zip(waves, rng.random(5), strict=True)) / 2.5
    )


def _speckle(rng: np.random.Generator, z: np.ndarray) -> np.ndarray:
    """Random tones on a lattice of four cells a period, repeated after 16 periods."""
    tones = rng.uniform(-1, 1, (64, 64))
    return tones[np.floor(4 * z.real).astype(int) % 64, np.floor(4 * z.imag).astype(int) % 64]


def _gradient(_: np.random.Generator, z: np.ndarray) -> np.ndarray:
    return 2 * (z.real - z.real.min()) / np.ptp(z.real) - 1


TEXTURES: dict[str, Texture] = {
    "clouds": _clouds,
    "stripes": lambda _, z: _wave(z),
    "ripples": lambda _, z: _wave(z + 0.2 * _wave(1j * z / 2)),
    "checker": lambda _, z: _wave(z) * _wave(1j * z),
    "speckle": _speckle,
    "gradient": _gradient,
}


@dataclass
class Layer:
    """One element of a scene; lengths and the complex position are in pixels."""

    label: int
    form: Form
    radius: float
    centre: complex
    colour: np.ndarray  # RGB in [0, 1]


def _turn(rng: np.random.Generator) -> complex:
    """A random rotation: a complex number of modulus 1."""
    return np.exp(2j * np.pi * rng.random())


def _spread(rng: np.random.Generator, count: int, dims: int, tries: int) -> np.ndarray:
    """Points [count, dims] of the unit cube, each the farthest from the earlier of some tries."""
    points = rng.random((1, dims))
    while len(points) < count:
        drawn = rng.random((tries, dims))
        gaps = np.linalg.norm(drawn[:, None] - points, axis=2).min(axis=1)
        points = np.vstack([points, drawn[gaps.argmax()]])
    return points


def _draw_layers(rng: np.random.Generator, size: int) -> tuple[np.ndarray, list[Layer]]:
    """The background's colour, and shapes and clutter in random order, back to front."""
    elements = [
        (label, SHAPES[CLASSES[label]], rng.uniform(0.1, 0.2))
        for label in rng.integers(1, len(CLASSES), rng.integers(3, 7))
    ]
    elements += [(0, CLUTTER["line"], rng.uniform(0.08, 0.2)) for _ in range(rng.integers(1, 4))]
    elements += [(0, CLUTTER["speck"], rng.uniform(0.01, 0.03)) for _ in range(rng.integers(2, 6))]
    # Spread-out places leave most shapes in plain sight. Colours are spread for contrast, then
    # shuffled: in the order of their drawing the early ones are paler.
    places = 0.08 + 0.84 * _spread(rng, len(elements), 2, tries=3)
    colours = rng.permutation(0.15 + 0.7 * _spread(rng, len(elements) + 1, 3, tries=8))
    layers = [
        Layer(label, form, radius * size, complex(*place) * size, colour)
        for (label, form, radius), place, colour in zip(elements, places, colours[1:], strict=True)
    ]
    return colours[0], [layers[i] for i in rng.permutation(len(layers))]


def _textured(rng: np.random.Generator, z: np.ndarray, colour: np.ndarray, size: int) -> np.ndarray:
    """A random texture [3, h, w] about a mean colour, at the pixels z [h, w] of a scene."""
    texture = list(TEXTURES.values())[rng.integers(len(TEXTURES))]
    period = size * rng.uniform(0.04, 0.12)
    tones = texture(rng, z * _turn(rng) / period + rng.random())
    tones = (tones * rng.uniform(1, 3)).clip(-1, 1)  # from soft to crisp
    swing = rng.normal(size=3)
    swing *= rng.uniform(0.08, 0.3) / np.linalg.norm(swing)
    colour, swing, tones = (part.astype(np.float32) for part in (colour, swing, tones))
    return colour[:, None, None] + swing[:, None, None] * tones


def _paint(
    rng: np.random.Generator, image: np.ndarray, labels: np.ndarray, grid: np.ndarray, layer: Layer
) -> None:
    """Paint a layer over image [3, H, W] and labels [H, W], in place, within its bounding box."""
    reach = REACH * layer.radius + 1
    rows, cols = (
        slice(max(0, int(middle - reach)), int(middle + reach) + 2)
        for middle in (layer.centre.imag, layer.centre.real)
    )
    z = grid[rows, cols] - layer.centre
    distance = layer.radius * layer.form(z * _turn(rng) / layer.radius)
    cover = (0.5 - distance).clip(0, 1).astype(np.float32)
    canvas = image[:, rows, cols]
    canvas += cover * (_textured(rng, z, layer.colour, len(grid)) - canvas)
    labels[rows, cols][distance < 0] = layer.label


def _develop(rng: np.random.Generator, image: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Light, blur and noise over image [3, H, W] in [0, 1]; returns uint8 [H, W, 3]."""
    slope = (grid * _turn(rng)).real / len(grid)
    light = 1 + rng.uniform(0, 0.5) * (slope - slope.mean())
    image = np.pad(image * light.astype(np.float32), ((0, 0), (1, 1), (1, 1)), mode="edge")
    side = rng.uniform(0, 0.25)  # the weight of each neighbour in the blur
    image = (1 - 2 * side) * image[:, 1:-1] + side * (image[:, :-2] + image[:, 2:])
    image = (1 - 2 * side) * image[..., 1:-1] + side * (image[..., :-2] + image[..., 2:])
    image += rng.uniform(0, 0.06) * rng.standard_normal(image.shape, np.float32)
    return (255 * image.clip(0, 1)).round().astype(np.uint8).transpose(1, 2, 0)


def _with_border(labels: np.ndarray) -> np.ndarray:
    """The labels [H, W] with the pixels on either side of a class boundary set to IGNORE."""
    mask = labels.copy()
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    mask[:, 1:][across] = mask[:, :-1][across] = IGNORE
    mask[1:][down] = mask[:-1][down] = IGNORE
    return mask


def render_scene(rng: np.random.Generator, size: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """A random scene: its image, RGB uint8 [size, size, 3], and its mask, uint8 [size, size].

    The mask holds positions in CLASSES, and IGNORE within a pixel of a class boundary.
    """
    rows, cols = np.mgrid[:size, :size] + 0.5
    grid = cols + 1j * rows
    colour, layers = _draw_layers(rng, size)
    image = _textured(rng, grid, colour, size)
    labels = np.zeros((size, size), np.uint8)
    for layer in layers:
        _paint(rng, image, labels, grid, layer)
    return _develop(rng, image, grid), _with_border(labels)
