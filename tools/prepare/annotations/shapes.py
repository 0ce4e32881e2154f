"""Polygons, boxes, ellipses and bitmaps as COCO's run lengths, rasterised by pycocotools.

Coordinates are in pixels; the upper left corner of the image is (0, 0), the centre of its first
pixel (0.5, 0.5).
"""

import base64
import math
from collections.abc import Sequence
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image
from pycocotools import mask as rle

from dataset.image_files import open_image
from tools.prepare.annotations.types import Draw

Rle = dict[str, Any]
MIN_COORDINATES = 6
"""Coordinates of the smallest polygon, three points."""
MARGIN = 1.0
"""Sides of the image by which coordinates may be outside; beyond, their unit is another."""
NARROW_MARGIN = 0.1
"""The same where the annotation holds no size, so that the image may have been resized since."""


def outline(parts: Sequence[ArrayLike], margin: float = MARGIN) -> Draw | str:
    """Return the function that draws `polygons`; their kind where none has an area."""
    # Four numbers, which pycocotools would take for a box, are a line.
    kept = [part for part in parts if np.size(part) >= MIN_COORDINATES]
    return partial(polygons, kept, margin=margin) if kept else "polygons of 1 or 2 points"


def polygons(
    parts: Sequence[ArrayLike],
    height: int,
    width: int,
    margin: float = MARGIN,
    scale: ArrayLike = 1,
) -> Rle:
    """Rasterise the union of polygons, each `x1, y1, x2, y2, ...` or pairs of x and y, times
    `scale`; raises `ValueError`. The caller leaves out polygons of fewer than 3 points."""
    flat = []
    for part in parts:
        if np.size(part) % 2:
            raise ValueError(f"{np.size(part)} coordinates; expected x and y of each point")
        points = np.reshape(np.asarray(part, float), (-1, 2)) * scale
        _check(points, height, width, margin)
        flat.append(points.ravel().tolist())
    return rle.merge(rle.frPyObjects(flat, height, width))


def normalised_polygon(part: ArrayLike, height: int, width: int) -> Rle:
    """Rasterise a polygon of coordinates from 0 to 1."""
    return polygons([part], height, width, scale=(width, height))


def corners(x: float, y: float, w: float, h: float, degrees: float = 0) -> list[list[float]]:
    """Return the polygon of a box, turned clockwise around its upper left corner."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    offsets = ((0, 0), (w, 0), (w, h), (0, h))
    return [[x + a * cos - b * sin, y + a * sin + b * cos] for a, b in offsets]


def ellipse(
    centre: Sequence[float], radii: Sequence[float], angle: float, height: int, width: int
) -> Rle:
    """Rasterise an ellipse, turned clockwise by `angle` (radians), by the centres of pixels."""
    _check(np.array([centre]), height, width)
    if not 0 < min(radii) <= max(radii) <= 2 * (height + width):
        raise ValueError(f"radii are {radii}; expected more than 0, in pixels of the image")
    y, x = np.ogrid[:height, :width]
    x, y = x + 0.5 - centre[0], y + 0.5 - centre[1]
    cos, sin = math.cos(angle), math.sin(angle)
    along, across = (x * cos + y * sin) / radii[0], (y * cos - x * sin) / radii[1]
    return bitmap(along**2 + across**2 <= 1)


def _check(points: np.ndarray, height: int, width: int, margin: float = MARGIN) -> None:
    """Raise `ValueError` for points `[N, 2]` that are not in the image or around it."""
    for name, values, side in zip("xy", points.T, (width, height), strict=True):
        furthest = values[np.abs(values - side / 2).argmax()]
        if not -margin * side <= furthest <= (1 + margin) * side:
            raise ValueError(
                f"{name} is {furthest:g}; expected 0 to {side}, in pixels of the image"
            )


def bitmap(covered: np.ndarray) -> Rle:
    """Encode a bool mask `[H, W]`."""
    return rle.encode(np.asfortranarray(covered, np.uint8))


def picture_in(text: str, key: str, size: tuple[int, int], slack: int = 0) -> Image.Image:
    """Decode an image of `size`, up to `slack` pixels, in base64, alone or as a data URL; raises
    `ValueError`."""
    try:
        picture = open_image(BytesIO(base64.b64decode(text.partition(";base64,")[2] or text)))
        if fits := all(abs(a - b) <= slack for a, b in zip(picture.size, size, strict=True)):
            picture.load()
    except (OSError, SyntaxError, ValueError):  # Pillow's of damaged files are among them
        raise ValueError(f"{key}: no image; expected a PNG in base64") from None
    if not fits:
        raise ValueError(
            f"{key}: {picture.width}x{picture.height} pixels; expected {size[0]}x{size[1]}"
        )
    return picture


def opaque(picture: Image.Image) -> np.ndarray:
    """Return the pixels `[H, W]` above half of the highest alpha or, without alpha, of the highest
    grey value."""
    has_alpha = picture.has_transparency_data
    values = np.asarray(
        picture.convert("RGBA").getchannel("A") if has_alpha else picture.convert("L")
    )
    return values > values.max(initial=0) / 2


def run_lengths(shape: dict[str, Any], height: int, width: int) -> Rle:
    """Read COCO's run lengths, a list of numbers or its compressed text; raises `ValueError`."""
    size, counts = shape.get("size"), shape.get("counts")
    if size != [height, width]:
        raise ValueError(f"size {size}; expected that of the image, {[height, width]}")
    try:
        runs = counts if isinstance(counts, list) else _decompressed(str(counts))
        fits = min(runs, default=-1) >= 0 and sum(runs) == height * width
    except Exception:  # `counts` of any other type
        fits = False
    if not fits:  # pycocotools would read uninitialised memory
        raise ValueError(f"counts do not add up to {width} x {height} pixels")
    return rle.frPyObjects({"size": size, "counts": runs}, height, width)


def _decompressed(counts: str) -> list[int]:
    """Return the numbers in COCO's text: 5 bits a character and a bit to continue, lowest first;
    from the third on, differences to the number before the last."""
    numbers: list[int] = []
    value = shift = 0
    for byte in counts.encode("ascii"):
        bits = byte - 48
        if not 0 <= bits < 64:
            raise ValueError("no run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) and 1 << shift
            numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("truncated run lengths")
    return numbers


def decoded(found: Rle) -> np.ndarray:
    """Return the bool mask `[H, W]`."""
    return rle.decode(found).astype(bool)


def area(found: Rle) -> int:
    return int(rle.area(found))
