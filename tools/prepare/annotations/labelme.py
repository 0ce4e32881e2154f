"""LabelMe's JSON: one file per image, next to it or in a folder of its own."""

from functools import partial
from math import dist
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from tools.prepare.annotations.parsing import JsonEntry, Point
from tools.prepare.annotations.shapes import bitmap, ellipse, outline, picture_in
from tools.prepare.annotations.types import Annotations, Draw, ImageAnnotation, region

POINTS = {
    "polygon": (),
    "rectangle": (2, 4),
    "circle": (2,),
    "mask": (2,),
    "oriented_rectangle": (4,),
    "rotation": (4,),
}
"""Types of shapes with an area, and their possible numbers of points; polygons: any number."""


def is_labelme(tree: object) -> bool:
    return isinstance(tree, dict) and {"shapes", "imagePath"} <= tree.keys()


def read_labelme(tree: JsonEntry, root: Path) -> Annotations:
    """Read the annotation of the image that `imagePath` names, or of the file's own name.

    Raises `UserError` for a missing or wrong key.
    """
    inside = PurePosixPath(tree.path.relative_to(root).as_posix())
    names = [str(inside.with_suffix(""))]
    named = PurePosixPath(tree.get("imagePath", str).replace("\\", "/")).name
    if named not in ("", ".."):
        names.insert(0, str(inside.with_name(named)))
    objects = [
        region(shape.get("label", str), shape.place("points"), _drawing(shape))
        for shape in tree.entries("shapes")
    ]
    size = tree.size("imageWidth", "imageHeight")
    return Annotations(
        "LabelMe", [ImageAnnotation(tree.path, tuple(names), size, objects, names_agree=True)]
    )


def _drawing(shape: JsonEntry) -> Draw | str:
    """Return the function that draws a shape; the kind of a shape without area."""
    kind = shape.get("shape_type", str, default="polygon")
    if kind not in POINTS:
        return f"shapes of type {kind}"
    points = shape.get("points", list[Point])
    if POINTS[kind] and len(points) not in POINTS[kind]:
        raise shape.error(f"{len(points)} points; expected {POINTS[kind][0]} ({kind})", "points")
    if kind == "mask":
        return partial(_mask, shape.get("mask", str), points)
    if kind == "circle":  # its centre, and a point on it
        radius = dist(*points)
        return partial(ellipse, points[0], (radius, radius), 0)
    if kind == "rectangle" and len(points) == 2:
        (x, y), (x2, y2) = points
        points = [(x, y), (x2, y), (x2, y2), (x, y2)]
    return outline([points])


def _mask(text: str, points: list[list[float]], height: int, width: int) -> dict:
    """Draw a PNG from its first pixel on, as LabelMe does; its last pixel may be off by one, by
    rounding or as the end that some versions write."""
    (x, y), (x2, y2) = ((round(v) for v in point) for point in points)
    if not (-1 <= x <= x2 <= width and -1 <= y <= y2 <= height):
        raise ValueError(f"points {points}; expected two pixels of the image, {width}x{height}")
    whole = Image.new("L", (width, height))
    patch = picture_in(text, "mask", (x2 - x + 1, y2 - y + 1), slack=1)
    whole.paste(patch.convert("L"), (x, y))
    return bitmap(np.asarray(whole) > 0)
