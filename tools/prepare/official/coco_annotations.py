"""COCO's annotations of an image as a mask: regions of instances, or a panoptic picture."""

import json
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as rle

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


class Instances(Archive):
    """The pictures of an instances_*.json as members, by image id in 12 digits."""

    def __init__(self, listed: Member):
        super().__init__(listed.archive.path / listed.name, listed.archive.title)
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
        for number, picture in pictures.items():
            self.add(f"{number:012d}", picture)

    def content(self, key: Picture) -> Picture:
        return key


def read_json(member: Member, *keys: str) -> dict[str, Any]:
    """The tree of a JSON file.  Raises `UserError` when it is damaged or lacks one of the keys."""
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
    """Category ids of things (the ids have gaps) to 1 .. 80; the instances' are all things."""
    things = sorted(c["id"] for c in categories if c.get("isthing", 1))
    if len(things) != THINGS:
        raise UserError(f"COCO's annotations have {len(things)} things, expected {THINGS}")
    return {number: label for label, number in enumerate(things, start=1)}


def instance_mask(picture: Picture) -> bytes:
    """PNG: crowds first, then the others by falling area, each over what is there."""
    mask = np.zeros((picture.height, picture.width), np.uint8)
    for region in sorted(picture.regions, key=lambda r: (not r.crowd, -r.area)):
        mask[_covered(region.shape, *mask.shape)] = region.label
    return png(mask)


def _covered(shape: Any, height: int, width: int) -> np.ndarray:
    """[H, W] bool.  Rasterised by COCO's own code, as other programs do, to the pixel."""
    if isinstance(shape, list):
        polygons = [polygon for polygon in shape if len(polygon) >= 6]  # four numbers make a box
        if not polygons:
            return np.zeros((height, width), bool)
        encoded = rle.merge(rle.frPyObjects(polygons, height, width))
    elif shape["size"] != [height, width]:
        raise ValueError(f"region of size {shape['size']} in an image of {[height, width]}")
    elif isinstance(shape["counts"], list):
        if sum(shape["counts"]) != height * width:
            raise ValueError("run lengths that do not add up to the image")
        encoded = rle.frPyObjects(shape, height, width)
    else:
        encoded = shape
    return rle.decode(encoded).astype(bool)


def panoptic_mask(picture: bytes, segments: dict[int, int]) -> bytes:
    """PNG of classes from one whose colours are segment ids, R + 256 G + 65536 B.

    Args:
        segments: id to class, of the things; all else is void.
    """
    with open_bytes(picture) as image:
        if image.mode != "RGB":
            raise ValueError(f"mode {image.mode}, expected the colours of segments, RGB")
        numbers = np.asarray(image).astype(np.uint32) @ np.array([1, 256, 65536], np.uint32)
    mask = np.zeros(numbers.shape, np.uint8)
    for number, label in segments.items():
        mask[numbers == number] = label
    return png(mask)
