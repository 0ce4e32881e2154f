"""JSON of the VGG Image Annotator 2 (and 1): a project, or its exported annotations."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tools.prepare.annotations.entries import Entry
from tools.prepare.annotations.model import Annotations, Picture, Region
from tools.prepare.annotations.shapes import NARROW_MARGIN, corners, ellipse, polygons

CLASS_KEYS = ("class", "label", "name", "type", "category", "object")
"""Names of the attribute with the class, where regions have several."""
ONLY = "object"
"""The class of regions that have no attributes at all."""


def is_via(tree: object) -> bool:
    if not isinstance(tree, dict):
        return False
    images = tree.get("_via_img_metadata", tree)
    return isinstance(images, dict) and ("_via_img_metadata" in tree or bool(images)) and all(
        isinstance(image, dict) and {"filename", "regions"} <= image.keys()
        for image in list(images.values())[:10]
    )  # fmt: skip


def read_via(tree: Entry, root: Path) -> Annotations:
    """Read a project.

    Raises `UserError` for a missing or wrong key, and if several attributes could be the class.
    """
    key = "_via_img_metadata"
    if key in tree.value:
        images = list(tree.entries(key))
    else:
        images = [Entry(value, tree.path, f"[{name}]") for name, value in tree.value.items()]
    regions = [list(image.entries("regions")) for image in images]
    attribute = _attribute(tree, [region for found in regions for region in found])
    skipped: Counter[str] = Counter()
    pictures = []
    for image, found in zip(images, regions, strict=True):
        drawn = [_region(region, attribute, skipped) for region in found]
        name = image.get("filename", str).replace("\\", "/")
        kept = [region for region in drawn if region]
        pictures.append(Picture(tree.path, (name,), None, kept, complete=False))
    return Annotations("VIA", pictures, _options(tree, attribute), skipped, {})


def _attribute(tree: Entry, regions: list[Entry]) -> str | None:
    """Return the attribute of regions with the class; None where they have none."""
    found = sorted({name for region in regions for name in region.entry("region_attributes").value})
    likely = [name for key in CLASS_KEYS for name in found if name.lower() == key]
    if len(found) > 1 and not likely:
        raise tree.error(
            f"region_attributes: found {', '.join(found)}; expected one attribute, or one named "
            f"{' or '.join(CLASS_KEYS)}"
        )
    return (likely or found or [None])[0]


def _options(tree: Entry, attribute: str | None) -> list[str]:
    """Return the classes in the order in which the project lists them."""
    found = tree.value
    for key in ("_via_attributes", "region", attribute, "options"):
        found = found.get(key) if isinstance(found, dict) else None
    return list(found) if isinstance(found, dict) else []


def _region(region: Entry, attribute: str | None, skipped: Counter[str]) -> Region | None:
    shape = region.entry("shape_attributes")
    kind = shape.get("name", str)
    draw = _drawing(shape, kind)
    label = ONLY if attribute is None else _label(region, attribute)
    if draw is None:
        skipped[f"regions of type {kind}"] += 1
    elif not label:
        skipped["regions without a class"] += 1
    else:
        return Region(label, shape.where, draw)
    return None


def _label(region: Entry, attribute: str) -> str:
    """Return the class of a region: a text, or the only checked box of several; '' for none."""
    found = region.entry("region_attributes").value.get(attribute, "")
    if isinstance(found, dict):
        checked = [name for name, value in found.items() if value]
        if len(checked) > 1:
            raise region.error(
                f"{' and '.join(checked)} are checked; expected one",
                f"region_attributes.{attribute}",
            )
        found = checked[0] if checked else ""
    return str(found).strip()


def _drawing(shape: Entry, kind: str) -> Callable | None:
    """Return the function that draws a region; None without area."""
    if kind == "polygon":
        xs, ys = shape.get("all_points_x", list), shape.get("all_points_y", list)
        if len(xs) != len(ys):
            raise shape.error(f"{len(ys)} values, all_points_x has {len(xs)}", "all_points_y")
        if len(xs) < 3:
            return None
        points = [v for pair in zip(xs, ys, strict=True) for v in pair]
        return partial(polygons, [points], margin=NARROW_MARGIN)
    if kind == "rect":
        box = [shape.number(key) for key in ("x", "y", "width", "height")]
        return partial(polygons, [corners(*box)], margin=NARROW_MARGIN)
    if kind == "circle":
        radius = shape.number("r")
        return partial(ellipse, (shape.number("cx"), shape.number("cy")), (radius, radius), 0)
    if kind == "ellipse":
        centre = shape.number("cx"), shape.number("cy")
        radii = shape.number("rx"), shape.number("ry")
        return partial(ellipse, centre, radii, shape.number("theta", default=0))
    return None
