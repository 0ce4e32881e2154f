"""LabelMe's JSON: one file per image, next to it or in a folder of its own."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from math import dist
from pathlib import Path, PurePosixPath

import numpy as np

from tools.prepare.annotations.entries import Entry
from tools.prepare.annotations.model import Annotations, Picture, Region
from tools.prepare.annotations.shapes import bitmap, ellipse, picture_in, polygons

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


def read_labelme(tree: Entry, root: Path) -> Annotations:
    """Read the annotation of the image that `imagePath` names, or of the file's own name.

    Raises `UserError` for a missing or wrong key.
    """
    inside = PurePosixPath(tree.path.relative_to(root).as_posix())
    named = PurePosixPath(tree.get("imagePath", str).replace("\\", "/")).name
    size = None
    if tree.get("imageWidth", int, default=0) and tree.get("imageHeight", int, default=0):
        size = tree.size("imageWidth", "imageHeight")
    regions, skipped = [], Counter[str]()
    for shape in tree.entries("shapes"):
        kind = shape.get("shape_type", str, default="polygon")
        label = shape.get("label", str)
        if kind not in POINTS:
            skipped[f"shapes of type {kind}"] += 1
            continue
        points = shape.points("points")
        if kind == "polygon" and len(points) < 3:
            skipped["polygons of 1 or 2 points"] += 1
            continue
        if POINTS[kind] and len(points) not in POINTS[kind]:
            raise shape.error(
                f"{len(points)} points; expected {POINTS[kind][0]} ({kind})", "points"
            )
        regions.append(Region(label, f"{shape.where}.points", _drawing(shape, kind, points)))
    names = [str(inside.with_suffix(""))]
    if named not in ("", ".."):
        names.insert(0, str(inside.with_name(named)))
    picture = Picture(
        tree.path, tuple(names), size, regions, complete=not skipped, names_agree=True
    )
    return Annotations("LabelMe", [picture], [], skipped, {})


def _drawing(shape: Entry, kind: str, points: list[tuple[float, float]]) -> Callable:
    if kind == "mask":
        return partial(_mask, shape, points)
    if kind == "circle":  # its centre, and a point on it
        radius = dist(*points)
        return partial(ellipse, points[0], (radius, radius), 0)
    if kind == "rectangle" and len(points) == 2:
        (x, y), (x2, y2) = points
        points = [(x, y), (x2, y), (x2, y2), (x, y2)]
    return partial(polygons, [[v for point in points for v in point]])


def _mask(shape: Entry, points: list[tuple[float, float]], height: int, width: int) -> dict:
    """Draw a PNG from its first pixel on, as LabelMe does; its last pixel may be off by one, by
    rounding or as the end that some versions write."""
    (x, y), (x2, y2) = ((round(v) for v in point) for point in points)
    if not (-1 <= x <= x2 <= width and -1 <= y <= y2 <= height):
        raise ValueError(f"points {points}; expected two pixels of the image, {width}x{height}")
    picture = picture_in(shape.get("mask", str), "mask", (x2 - x + 1, y2 - y + 1), slack=1)
    whole = np.zeros((height + 2, width + 2), bool)  # a pixel more on each side
    patch = np.asarray(picture.convert("L"))[: height + 1 - y, : width + 1 - x] > 0
    whole[y + 1 :, x + 1 :][: patch.shape[0], : patch.shape[1]] = patch
    return bitmap(whole[1:-1, 1:-1])
