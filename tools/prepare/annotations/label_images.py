"""PNG label images: Pascal VOC's palette masks and CVAT's "segmentation mask 1.1"."""

from functools import partial
from pathlib import Path

import numpy as np

from dataset.file_content import load_picture, read_content
from dataset.image_files import open_image
from dataset.mask_files import code_of, colour_codes, key_of, palette_codes, value_codes
from tools.prepare.annotations.parsing import names_in, read_text
from tools.prepare.annotations.types import (
    Annotations,
    LabelImage,
    label_image_annotations,
    numbered_classes,
)
from util.colours import IGNORE_COLOUR, Colour
from util.config.types import IGNORE
from util.errors import UserError

FOLDERS = ("SegmentationClass", "SegmentationClassPNG", "SegmentationClassAug")
LABEL_MAP = "labelmap.txt"
VOC = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
    "motorbike person pottedplant sheep sofa train tvmonitor"
).split()
VOID = code_of(",".join(map(str, IGNORE_COLOUR)))


def find_folder(root: Path) -> Path | None:
    """Return the folder of class masks in a dataset of VOC's layout."""
    if root.name in FOLDERS:
        return root
    return next((root / name for name in FOLDERS if any((root / name).rglob("*.png"))), None)


def read_masks(files: list[Path], folder: Path, root: Path) -> Annotations:
    """Read PNG masks, with the classes of labelmap.txt (colours) or class_names.txt (indices), or
    else of VOC where masks have its palette. 255 and VOC's colour of borders are ignored.

    Raises `UserError` for a file of names that cannot be read.
    """
    title, names, colours = "palette masks", [], {}
    parents = (root, root.parent, folder.parent)
    lists = (parent / name for parent in parents for name in (LABEL_MAP, "class_names.txt"))
    file = next(filter(Path.is_file, lists), None)
    if file and file.name == LABEL_MAP:
        title, colours = "masks with labelmap.txt", _label_map(file)
        names = list(colours)
    elif file:
        names = names_in(file)
    if not names and _has_voc_palette(files):
        title, names = "palette masks, with Pascal VOC's palette and class names", VOC
    per_image = label_image_annotations(
        files, folder, partial(_read_mask, names=names, colours=colours)
    )
    if not colours and names:
        colours = {name: voc_colour(index) for index, name in enumerate(names)}
    return Annotations(title, per_image, names, colours)


def _read_mask(file: Path, names: list[str], colours: dict[str, Colour]) -> LabelImage:
    mask = read_content(file)
    if colours and (mask.mode == "P" or mask.mode.startswith("RGB")):
        values = colour_codes(mask, file).astype(np.int64)
        known: dict[int, str | None] = {VOID: None}
        known |= {code_of(",".join(map(str, c))): name for name, c in colours.items()}
        unit, where = "colour", LABEL_MAP
    else:
        values = value_codes(mask, file)
        known = {**dict(enumerate(names)), IGNORE: None}
        unit, where = "value", "the class names"
        if not names:
            known = dict(numbered_classes(values))
    if lacking := sorted(set(np.unique(values).tolist()) - known.keys()):
        key = key_of(lacking[0], unit == "colour")
        raise UserError(f"{file}: {unit} {key} is not in {where}. Fix: add it there")
    return LabelImage(values, known)


def _label_map(path: Path) -> dict[str, Colour]:
    """Return the lines `name:r,g,b:parts:actions` of a file."""
    colours: dict[str, Colour] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.strip().partition(":")
        try:
            red, green, blue = bytes(map(int, rest.split(":")[0].split(",")))
        except ValueError:
            raise UserError(
                f"{path}: line {number}: expected name:red,green,blue::, found {line[:40]!r}"
            ) from None
        if (red, green, blue) in colours.values():
            raise UserError(
                f"{path}: line {number}: two classes have the colour {red},{green},{blue}"
            )
        colours[name] = (red, green, blue)
    if not colours:
        raise UserError(f"{path}: names no class; expected lines such as road:128,64,128::")
    return colours


def voc_colour(index: int) -> Colour:
    """Return VOC's colour of an index: its bits in turn to red, green, blue, highest first."""
    bits = f"{index:024b}"[::-1]
    return int(bits[0::3], 2), int(bits[1::3], 2), int(bits[2::3], 2)


def _has_voc_palette(files: list[Path]) -> bool:
    expected = [code_of(",".join(map(str, voc_colour(index)))) for index in range(len(VOC))]
    for file in files:
        mask = load_picture(file)
        used = set(np.unique(np.asarray(mask)).tolist()) - {IGNORE} if mask.mode == "P" else {-1}
        if not used <= set(range(len(VOC))):
            return False
        palette = palette_codes(mask)
        if any(palette[index] != expected[index] for index in used):
            return False
    return True


def has_palette(file: Path) -> bool:
    try:
        with open_image(file) as image:
            return image.mode == "P"
    except Exception:  # damaged files raise any exception
        return False
