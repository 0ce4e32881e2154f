"""COCO's JSON: instances (polygons, run lengths, crowds) and panoptic PNG files."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from dataset.file_content import Content, load_picture
from dataset.mask_files import colour_codes
from tools.prepare.annotations.entries import Entry
from tools.prepare.annotations.model import Annotations, Dense, Picture, Region, Size
from tools.prepare.annotations.shapes import polygons, run_lengths
from util.colours import Colour
from util.errors import UserError

MIN_COORDINATES = 6
"""Coordinates of the smallest polygon, three points."""


def is_instances(tree: object) -> bool:
    """Return whether a JSON file has COCO's layout; captions have no categories."""
    return (
        isinstance(tree, dict)
        and {"images", "annotations"} <= tree.keys()
        and ("categories" in tree or "caption" not in str(tree["annotations"])[:1000])
    )


def is_panoptic(tree: object) -> bool:
    entries = tree.get("annotations") if isinstance(tree, dict) else None
    return isinstance(entries, list) and any(
        isinstance(entry, dict) and "segments_info" in entry for entry in entries[:10]
    )


def read_instances(tree: Entry, root: Path) -> Annotations:
    """Read annotations; raises `UserError` for a missing or wrong key."""
    names, colours = _categories(tree)
    images = _by_id(tree, "images")
    regions: dict[int | str, list[Region]] = {key: [] for key in images}
    skipped: Counter[str] = Counter()
    for entry in tree.entries("annotations"):
        label, image = _label(entry, names), _image_id(entry, images)
        shape = entry.get("segmentation", list, dict, default=[])
        if draw := _drawing(entry, shape):
            regions[image].append(Region(label, f"{entry.where}.segmentation", draw))
        else:
            skipped["boxes without segmentation" if not shape else "polygons of 1 or 2 points"] += 1
    pictures = [
        Picture(
            tree.path, (entry.get("file_name", str),), _size(entry), regions[key], complete=False
        )
        for key, entry in images.items()
    ]
    return Annotations("COCO instances", pictures, list(names.values()), skipped, colours)


def _drawing(entry: Entry, shape: list | dict) -> Callable | None:
    """Return the function that draws a segmentation; None without area."""
    if isinstance(shape, dict):
        return partial(run_lengths, shape)
    parts = [shape] if shape and not isinstance(shape[0], list) else shape
    for part in parts:
        if not isinstance(part, list):
            raise entry.error("expected a list of polygons or run lengths", "segmentation")
        if any(isinstance(value, list) for value in part):
            raise entry.error("found pairs; expected x1, y1, x2, y2, ...", "segmentation")
    # Four numbers, which pycocotools would take for a box, are a line.
    parts = [part for part in parts if len(part) >= MIN_COORDINATES]
    return partial(polygons, parts) if parts else None


def read_panoptic(tree: Entry, root: Path) -> Annotations:
    """Read annotations; raises `UserError` for a missing or wrong key."""
    names, colours = _categories(tree)
    images = _by_id(tree, "images")
    pictures = []
    for entry in tree.entries("annotations"):
        image = images[_image_id(entry, images)]
        segments = {s.get("id", int): _label(s, names) for s in entry.entries("segments_info")}
        png = _png(tree.path, entry)
        title = image.get("file_name", str)
        read = partial(_segments, png, segments)
        pictures.append(Picture(png, (title,), _size(image), [], read))
    return Annotations("COCO panoptic", pictures, list(names.values()), Counter(), colours)


def _size(image: Entry) -> Size | None:
    """Return the size of an image; None if the file lacks it, as some exports do."""
    named = image.get("width", int, default=None) or image.get("height", int, default=None)
    return image.size("width", "height") if named else None


def _png(path: Path, entry: Entry) -> Path:
    """Return the PNG of segments, in the folder with the JSON file's name or next to this file."""
    name = entry.get("file_name", str)
    folders = (path.with_suffix(""), path.parent, path.parent / path.stem.replace("_instances", ""))
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise entry.error(f"no such file {folders[0] / name}", "file_name")


def _segments(png: Path, names: dict[int, str]) -> Dense:
    """Read segment ids from colours: R + 256 G + 65536 B."""
    picture = load_picture(png)
    if picture.mode not in ("RGB", "RGBA"):
        raise UserError(f"{png}: mode {picture.mode}; expected the colours of segments, RGB")
    values = colour_codes(Content(picture.convert("RGB")), png).astype(np.int64)
    lacking = names.keys() - set(np.unique(values).tolist())
    if len(lacking) == len(names) > 0:
        raise UserError(f"{png}: holds none of its segments' ids; expected {min(lacking)}")
    return Dense(values, dict(names))


def _categories(tree: Entry) -> tuple[dict[int | str, str], dict[str, Colour]]:
    """Return names by id, in the order of the ids, and their colours."""
    entries = _by_id(tree, "categories")
    ids = sorted(entries, key=lambda key: (isinstance(key, str), key))
    names = {key: entries[key].get("name", str) for key in ids}
    found = {names[key]: entries[key].value.get("color") for key in ids}
    colours = {
        name: tuple(colour)
        for name, colour in found.items()
        if isinstance(colour, list) and len(colour) == 3 and all(c in range(256) for c in colour)
    }
    return names, colours


def _by_id(tree: Entry, key: str) -> dict[int | str, Entry]:
    """Return the entries of a list by their ids; raises `UserError` for two that differ."""
    found: dict[int | str, Entry] = {}
    for entry in tree.entries(key):
        first = found.setdefault(entry.get("id", int, str), entry)
        if first.value != entry.value:
            raise entry.error(f"{first.value['id']} is the id of {first.where} too", "id")
    return found


def _image_id(entry: Entry, images: dict[int | str, Entry]) -> int | str:
    key = entry.get("image_id", int, str)
    if key not in images:
        raise entry.error(f"{key} is the id of no image", "image_id")
    return key


def _label(entry: Entry, names: dict[int | str, str]) -> str:
    key = entry.get("category_id", int, str)
    if key not in names:
        raise entry.error(f"{key} is the id of no category", "category_id")
    return names[key]
