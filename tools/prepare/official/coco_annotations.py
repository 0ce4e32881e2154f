"""Masks from COCO's annotations: regions of instances, or a panoptic picture."""

import json
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from tools.prepare.annotations.shapes import decoded, polygons, run_lengths
from tools.prepare.official.archives import Archive, Member
from tools.prepare.official.masks import open_bytes, png
from util.errors import UserError

THINGS = 80


class Region(NamedTuple):
    """An instance; `shape` is a list of polygons or a run-length encoding."""

    label: int
    crowd: bool
    area: float
    shape: Any


class Picture(NamedTuple):
    """The instances of an image."""

    height: int
    width: int
    regions: list[Region]


def instances(listed: Member) -> dict[str, Member]:
    """Return the pictures of an instances_*.json as members, by image id in 12 digits."""
    tree = read_json(listed, "images", "annotations", "categories")
    classes = thing_classes(tree["categories"])
    pictures = {i["id"]: Picture(i["height"], i["width"], []) for i in tree["images"]}
    for entry in tree["annotations"]:
        region = Region(
            classes[entry["category_id"]],
            bool(entry["iscrowd"]),
            entry["area"],
            entry["segmentation"],
        )
        pictures[entry["image_id"]].regions.append(region)
    archive = Archive(listed.archive.path / listed.name, listed.archive.title)
    for number, picture in pictures.items():
        archive.add(f"{number:012d}", partial(Picture._make, picture))
    return archive.members


def read_json(member: Member, *keys: str) -> dict[str, Any]:
    """Return the tree of a JSON file; raises `UserError` for damage and for a missing key."""
    path = member.archive.path / member.name
    try:
        tree = json.loads(member.load())
    except ValueError as error:
        raise UserError(f"{path}: no JSON ({error}); download it again") from None
    for key in keys:
        if key not in tree:
            raise UserError(f"{path}: has no '{key}'; expected COCO's annotations of 2017")
    return tree


def thing_classes(categories: list[dict[str, Any]]) -> dict[int, int]:
    """Map category ids of things (the ids have gaps) to 1 .. 80; all of instances are things."""
    things = sorted(c["id"] for c in categories if c.get("isthing", 1))
    if len(things) != THINGS:
        raise UserError(f"COCO's annotations have {len(things)} things, expected {THINGS}")
    return {number: label for label, number in enumerate(things, start=1)}


def instance_mask(picture: Picture) -> bytes:
    """Draw a PNG: crowds first, then the others by falling area, each over the previous ones."""
    mask = np.zeros((picture.height, picture.width), np.uint8)
    for region in sorted(picture.regions, key=lambda r: (not r.crowd, -r.area)):
        mask[_covered(region.shape, *mask.shape)] = region.label
    return png(mask)


def _covered(shape: Any, height: int, width: int) -> np.ndarray:
    """`[H, W]` bool. Rasterised by COCO's own code, as other programs do, to the pixel."""
    if isinstance(shape, dict):
        return decoded(run_lengths(shape, height, width))
    parts = [part for part in shape if len(part) >= 6]  # four numbers make a box
    return decoded(polygons(parts, height, width)) if parts else np.zeros((height, width), bool)


def panoptic_mask(picture: bytes, segments: dict[int, int]) -> bytes:
    """Convert a PNG whose colours are segment ids, R + 256 G + 65536 B, to one of classes.

    Args:
        segments: id to class, of the things; the rest is void.
    """
    with open_bytes(picture) as image:
        if image.mode != "RGB":
            raise ValueError(f"mode {image.mode}, expected the colours of segments, RGB")
        numbers = np.asarray(image).astype(np.uint32) @ np.array([1, 256, 65536], np.uint32)
    mask = np.zeros(numbers.shape, np.uint8)
    for number, label in segments.items():
        mask[numbers == number] = label
    return png(mask)
