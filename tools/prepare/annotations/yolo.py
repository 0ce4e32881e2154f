"""YOLO's segmentation labels: a text file per image, a line `class x1 y1 x2 y2 ...` per object."""

from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from tools.prepare.annotations.parsing import names_in, read_text
from tools.prepare.annotations.shapes import normalised_polygon
from tools.prepare.annotations.types import Annotations, ImageAnnotation, Region
from util.errors import UserError, reason

NAMES = ("data.yaml", "dataset.yaml", "data.yml", "classes.txt", "obj.names", "labels.txt")
"""Files that name the classes."""
NO_LABELS = (*NAMES, "class_names.txt")
"""Files that are no labels: names of classes, of palette masks too."""
BOX = 4
"""Coordinates of a box."""
BEYOND = 0.1
"""Distance by which coordinates may be outside [0, 1], for objects at the border."""


def label_files(files: list[Path], root: Path) -> list[Path]:
    """Return the text files below folders named labels; without such a folder, all but lists."""
    texts = [f for f in files if f.suffix.lower() == ".txt" and f.name not in NO_LABELS]
    inside = [f for f in texts if "labels" in f.relative_to(root.parent).parts[:-1]]
    return inside or [
        f for f in texts if not f.name.lower().startswith(("readme", "train.", "val.", "test."))
    ]


def read_yolo(files: list[Path], root: Path, names_file: Path | None) -> Annotations:
    """Read label files; raises `UserError` for a wrong line, and if no file names the classes."""
    names = class_names(names_file or find_names(root))
    per_image = []
    for file in files:
        inside = PurePosixPath(file.relative_to(root).with_suffix("").as_posix())
        name = "/".join("images" if part == "labels" else part for part in inside.parts)
        per_image.append(ImageAnnotation(file, (name,), objects=_objects(file, names)))
    if any(p.skipped for p in per_image) and not any(p.regions for p in per_image):
        raise UserError(f"{files[0]}: boxes only; expected polygons, class x1 y1 x2 y2 x3 y3 ...")
    return Annotations("YOLO segmentation", per_image, names)


def find_names(root: Path) -> Path:
    """Return the file that names the classes: in the folder or up to two above it."""
    for folder in (root, *list(root.parents)[:2]):
        for name in NAMES:
            if (folder / name).is_file():
                return folder / name
    raise UserError(f"{root}: no file names the classes; expected data.yaml or classes.txt there")


def class_names(path: Path) -> list[str]:
    """Return the names by index; raises `UserError` where there are none."""
    names: Any
    if path.suffix not in (".yaml", ".yml"):
        names = names_in(path)
    else:
        try:
            tree = yaml.safe_load(read_text(path))
        except yaml.YAMLError as error:
            raise UserError(f"{path}: not YAML ({reason(error)})") from None
        if isinstance(tree, dict) and "kpt_shape" in tree:
            raise UserError(f"{path}: kpt_shape: labels are keypoints; expected polygons")
        names = tree.get("names") if isinstance(tree, dict) else None
        if isinstance(names, dict) and sorted(names) == list(range(len(names))):
            names = [names[index] for index in range(len(names))]
    kinds = {type(name) for name in names} if isinstance(names, list) else set()
    if not isinstance(names, list) or not names or kinds - {str, int}:
        raise UserError(f"{path}: names: found {names!r}; expected texts in a list or by 0, 1, ...")
    return [str(name) for name in names]


def _objects(file: Path, names: list[str]) -> list[Region | str]:
    objects: list[Region | str] = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.split():
            continue
        where = f"{file}: line {number}"
        try:
            label, *values = map(float, line.split())
        except ValueError:
            raise UserError(f"{where}: expected numbers, found {line[:40]!r}") from None
        if label not in range(len(names)):
            raise UserError(f"{where}: class {label:g}; expected 0 to {len(names) - 1}")
        if len(values) <= BOX:
            objects.append("boxes")
            continue
        if not all(-BEYOND <= value <= 1 + BEYOND for value in values):
            worst = max(values, key=abs)
            raise UserError(f"{where}: coordinate {worst:g}; expected shares, 0 to 1")
        objects.append(
            Region(names[int(label)], f"line {number}", partial(normalised_polygon, values))
        )
    return objects
