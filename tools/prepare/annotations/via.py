"""JSON of the VGG Image Annotator 2 (and 1): a project, or its exported annotations."""

from functools import partial
from pathlib import Path

from pydantic import FiniteFloat

from tools.prepare.annotations.parsing import JsonEntry
from tools.prepare.annotations.shapes import NARROW_MARGIN, corners, ellipse, outline
from tools.prepare.annotations.types import Annotations, Draw, ImageAnnotation, Region, region

PROJECT = "_via_img_metadata"
"""Key of the images in a project; exported annotations are the images alone."""
CLASS_KEYS = ("class", "label", "name", "type", "category", "object")
"""Names of the attribute with the class, where regions have several."""
ONLY = "object"
"""The class of regions that have no attributes at all."""


def is_via(tree: object) -> bool:
    if not isinstance(tree, dict):
        return False
    images = tree.get(PROJECT, tree)
    return isinstance(images, dict) and (PROJECT in tree or bool(images)) and all(
        isinstance(image, dict) and {"filename", "regions"} <= image.keys()
        for image in list(images.values())[:10]
    )  # fmt: skip


def read_via(tree: JsonEntry, root: Path) -> Annotations:
    """Read a project.

    Raises `UserError` for a missing or wrong key, and if several attributes could be the class.
    """
    if PROJECT in tree.value:
        images = list(tree.entries(PROJECT))
    else:
        images = [JsonEntry(value, tree.path, f"[{name}]") for name, value in tree.value.items()]
    regions = {image: list(image.entries("regions")) for image in images}
    attribute = _attribute(tree, [one for found in regions.values() for one in found])
    per_image = [
        ImageAnnotation(
            tree.path,
            (image.get("filename", str).replace("\\", "/"),),
            objects=[_object(one, attribute) for one in found],
            may_be_unannotated=True,
        )
        for image, found in regions.items()
    ]
    return Annotations("VIA", per_image, _options(tree, attribute))


def _attribute(tree: JsonEntry, regions: list[JsonEntry]) -> str | None:
    """Return the attribute of regions with the class; None where they have none."""
    found = sorted({name for one in regions for name in one.entry("region_attributes").value})
    likely = [name for key in CLASS_KEYS for name in found if name.lower() == key]
    if len(found) > 1 and not likely:
        raise tree.error(
            f"found {', '.join(found)}; expected one attribute, or one named "
            f"{' or '.join(CLASS_KEYS)}",
            "region_attributes",
        )
    return (likely or found or [None])[0]


def _options(tree: JsonEntry, attribute: str | None) -> list[str]:
    """Return the classes in the order in which the project lists them."""
    found = tree.value
    for key in ("_via_attributes", "region", attribute, "options"):
        found = found.get(key) if isinstance(found, dict) else None
    return list(found) if isinstance(found, dict) else []


def _object(one: JsonEntry, attribute: str | None) -> Region | str:
    shape = one.entry("shape_attributes")
    draw = _drawing(shape)
    label = ONLY if attribute is None else _label(one.entry("region_attributes"), attribute)
    if not label and not isinstance(draw, str):
        return "regions without a class"
    return region(label, shape.where, draw)


def _label(attributes: JsonEntry, key: str) -> str:
    """Return the class of a region: a text, or the only checked box of several; '' for none."""
    found = attributes.value.get(key, "")
    if isinstance(found, dict):
        checked = [name for name, value in found.items() if value]
        if len(checked) > 1:
            raise attributes.error(f"{' and '.join(checked)} are checked; expected one", key)
        found = "".join(checked)
    return str(found).strip()


def _drawing(shape: JsonEntry) -> Draw | str:
    """Return the function that draws a region; the kind of a region without area."""

    def numbers(*keys: str) -> list[float]:
        return [shape.get(key, FiniteFloat) for key in keys]

    kind = shape.get("name", str)
    if kind == "polygon":
        xs, ys = (shape.get(f"all_points_{axis}", list[FiniteFloat]) for axis in "xy")
        if len(xs) != len(ys):
            raise shape.error(f"{len(ys)} values, all_points_x has {len(xs)}", "all_points_y")
        return outline([list(zip(xs, ys, strict=True))], NARROW_MARGIN)
    if kind == "rect":
        return outline([corners(*numbers("x", "y", "width", "height"))], NARROW_MARGIN)
    if kind == "circle":
        return partial(ellipse, numbers("cx", "cy"), numbers("r", "r"), 0)
    if kind == "ellipse":
        angle = shape.get("theta", FiniteFloat, default=0)
        return partial(ellipse, numbers("cx", "cy"), numbers("rx", "ry"), angle)
    return f"regions of type {kind}"
