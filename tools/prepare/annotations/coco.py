"""COCO's JSON: instances (polygons, run lengths, crowds) and panoptic PNG files."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import FiniteFloat

from dataset.file_content import Content, load_picture
from dataset.mask_files import colour_codes
from tools.prepare.annotations.parsing import Id, JsonEntry
from tools.prepare.annotations.shapes import outline, run_lengths
from tools.prepare.annotations.types import (
    Annotations,
    Draw,
    ImageAnnotation,
    LabelImage,
    Region,
    region,
)
from util.colours import Colour
from util.errors import UserError

T = TypeVar("T")


def is_instances(tree: object) -> bool:
    """Return True if a JSON file has COCO's layout; captions have no categories."""
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


def read_instances(tree: JsonEntry, root: Path) -> Annotations:
    """Read annotations; raises `UserError` for a missing or wrong key."""
    names, colours = _categories(tree)
    images = _by_id(tree, "images")
    objects: dict[int | str, list[Region | str]] = {key: [] for key in images}
    for entry in tree.entries("annotations"):
        label = _look_up(entry, "category_id", names)
        found = region(label, entry.place("segmentation"), _drawing(entry))
        _look_up(entry, "image_id", objects).append(found)
    per_image = [
        ImageAnnotation(
            tree.path,
            (image.get("file_name", str),),
            image.size("width", "height"),
            objects[key],
            may_be_unannotated=True,
        )
        for key, image in images.items()
    ]
    return Annotations("COCO instances", per_image, list(names.values()), colours)


def _drawing(entry: JsonEntry) -> Draw | str:
    """Return the function that draws a segmentation; the kind of an object without area."""
    shape = entry.value.get("segmentation")
    if not shape:
        return "boxes without segmentation"
    if isinstance(shape, dict):
        return partial(run_lengths, shape)
    is_flat = isinstance(shape, list) and not isinstance(shape[0], list)
    parts = entry.get("segmentation", list[FiniteFloat] if is_flat else list[list[FiniteFloat]])
    return outline([parts] if is_flat else parts)


def read_panoptic(tree: JsonEntry, root: Path) -> Annotations:
    """Read annotations; raises `UserError` for a missing or wrong key."""
    names, colours = _categories(tree)
    images = _by_id(tree, "images")
    per_image = []
    for entry in tree.entries("annotations"):
        image = _look_up(entry, "image_id", images)
        segments = {
            segment.get("id", int): _look_up(segment, "category_id", names)
            for segment in entry.entries("segments_info")
        }
        png = _png(tree.path, entry)
        read = partial(_read_segments, png, segments)
        size = image.size("width", "height")
        per_image.append(
            ImageAnnotation(png, (image.get("file_name", str),), size, read_label_image=read)
        )
    return Annotations("COCO panoptic", per_image, list(names.values()), colours)


def _png(path: Path, entry: JsonEntry) -> Path:
    """Return the PNG of segments, in the folder with the JSON file's name or next to this file."""
    name = entry.get("file_name", str)
    folders = (path.with_suffix(""), path.parent, path.parent / path.stem.replace("_instances", ""))
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise entry.error(f"no such file {folders[0] / name}", "file_name")


def _read_segments(png: Path, names: dict[int, str]) -> LabelImage:
    """Read segment ids from colours: R + 256 G + 65536 B."""
    picture = load_picture(png)
    if picture.mode not in ("RGB", "RGBA"):
        raise UserError(f"{png}: mode {picture.mode}; expected the colours of segments, RGB")
    values = colour_codes(Content(picture.convert("RGB")), png).astype(np.int64)
    lacking = names.keys() - set(np.unique(values).tolist())
    if len(lacking) == len(names) > 0:
        raise UserError(f"{png}: holds none of its segments' ids; expected {min(lacking)}")
    return LabelImage(values, names)


def _categories(tree: JsonEntry) -> tuple[dict[int | str, str], dict[str, Colour]]:
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


def _by_id(tree: JsonEntry, key: str) -> dict[int | str, JsonEntry]:
    """Return the entries of a list by their ids; raises `UserError` for two that differ."""
    found: dict[int | str, JsonEntry] = {}
    for entry in tree.entries(key):
        first = found.setdefault(entry.get("id", Id), entry)
        if first.value != entry.value:
            raise entry.error(f"{first.value['id']} is the id of {first.where} too", "id")
    return found


def _look_up(entry: JsonEntry, key: str, by_id: Mapping[int | str, T]) -> T:
    """Return what an id belongs to; raises `UserError` for another id."""
    found = entry.get(key, Id)
    if found not in by_id:
        raise entry.error(f"{found} is the id of no entry; expected one in the file", key)
    return by_id[found]
