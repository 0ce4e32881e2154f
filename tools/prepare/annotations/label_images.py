"""Label images: Pascal VOC's palette PNGs, CVAT's "segmentation mask 1.1", and MATLAB arrays."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from dataset.file_content import load_picture, read_content
from dataset.image_files import MAX_MEGAPIXELS, open_image
from dataset.mask_files import code_of, colour_codes, key_of, palette_codes, value_codes
from tools.prepare.annotations.entries import read_text
from tools.prepare.annotations.model import Annotations, Dense, Picture
from tools.prepare.hdf5 import fault
from util.colours import IGNORE_COLOUR, Colour
from util.config.types import IGNORE
from util.errors import UserError, reason
from util.optional import import_optional

FOLDERS = ("SegmentationClass", "SegmentationClassPNG", "SegmentationClassAug")
VOC = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
    "motorbike person pottedplant sheep sofa train tvmonitor"
).split()
VOID = code_of(",".join(map(str, IGNORE_COLOUR)))
MATLAB_NAMES = ("LabelMap", "Segmentation", "S", "label", "labels", "labelmap", "mask", "gt")
"""Names of the array of labels in a file with several arrays."""
HEADER = 116
"""Bytes of text at the start of a .mat file."""
LARGEST = 8 * MAX_MEGAPIXELS * 10**6
"""Bytes of an array of doubles."""
NamesByValue = dict[int, str | None]


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
    lists = (parent / name for parent in parents for name in ("labelmap.txt", "class_names.txt"))
    file = next(filter(Path.is_file, lists), None)
    if file and file.name == "labelmap.txt":
        title, colours = "masks with labelmap.txt", _label_map(file)
        names = list(colours)
    elif file:
        names = [line.strip() for line in read_text(file).splitlines() if line.strip()]
    if not names and _has_voc_palette(files):
        title, names = "palette masks, with Pascal VOC's palette and class names", VOC
    pictures = _pictures(files, folder, partial(_read_mask, names=names, colours=colours))
    if not colours and names:
        colours = {name: voc_colour(index) for index, name in enumerate(names)}
    return Annotations(title, pictures, names, Counter(), colours)


def _pictures(files: list[Path], folder: Path, read: Callable[[Path], Dense]) -> list[Picture]:
    names = [file.relative_to(folder).with_suffix("").as_posix() for file in files]
    return [
        Picture(file, (name,), None, [], partial(read, file))
        for file, name in zip(files, names, strict=True)
    ]


def _read_mask(file: Path, names: list[str], colours: dict[str, Colour]) -> Dense:
    mask = read_content(file)
    if colours and (mask.mode == "P" or mask.mode.startswith("RGB")):
        values = colour_codes(mask, file).astype(np.int64)
        known: NamesByValue = {VOID: None}
        known |= {code_of(",".join(map(str, c))): name for name, c in colours.items()}
        unit, where = "colour", "labelmap.txt"
    else:
        values = value_codes(mask, file)
        known = {**dict(enumerate(names)), IGNORE: None}
        unit, where = "value", "the class names"
        if not names:
            known = {int(v): f"class_{v}" for v in np.unique(values)} | {IGNORE: None}
    if lacking := sorted(set(np.unique(values).tolist()) - known.keys()):
        key = key_of(lacking[0], unit == "colour")
        raise UserError(f"{file}: {unit} {key} is not in {where}; add it there")
    return Dense(values, known)


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
    colour = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            colour[channel] |= (index >> (3 * place + channel) & 1) << (7 - place)
    return colour[0], colour[1], colour[2]


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


def read_matlab(files: list[Path], root: Path) -> Annotations:
    """Read a `.mat` file per image (up to MATLAB 7.3) with an array of labels `[H, W]`; value v is
    the class `class_v`, 255 is ignored."""
    return Annotations("MATLAB arrays", _pictures(files, root, _read_array), [], Counter(), {})


def _read_array(file: Path) -> Dense:
    try:
        found = _hdf5_arrays(file) if _is_hdf5(file) else _own_arrays(loadmat(file))
    except UserError:
        raise
    except Exception as error:  # damaged files raise any exception
        raise UserError(f"{file}: not a readable .mat file ({reason(error)})") from None
    found = {key: values for key, values in found.items() if _are_labels(values)}
    likely = [key for key in found if key.rpartition(".")[2] in MATLAB_NAMES]
    if len(found) != 1 and len(likely) != 1:
        raise UserError(f"{file}: found {len(found)} arrays of whole numbers ({', '.join(found)}); "
                        "expected one, [H, W]")  # fmt: skip
    values = found[(likely if len(likely) == 1 else list(found))[0]].astype(np.int64)
    return Dense(values, {int(v): f"class_{v}" for v in np.unique(values)} | {IGNORE: None})


def _is_hdf5(file: Path) -> bool:
    """Return whether MATLAB wrote a file with -v7.3: HDF5 after a header of text."""
    with file.open("rb") as content:
        return b"MATLAB 7.3" in content.read(HEADER)


def _hdf5_arrays(file: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a MATLAB 7.3 file, also in structs, by name; texts are none."""
    found: dict[str, np.ndarray] = {}

    def add(group: Any, before: str) -> None:
        for name in group:
            problem = fault(group, name, LARGEST)
            if problem == "is a group" and not name.startswith("#"):
                add(group[name], f"{before}{name}.")
            elif not problem and group[name].attrs.get("MATLAB_class") != b"char":
                found[before + name] = group[name][()].T  # MATLAB stores columns first

    with import_optional("h5py", f"{file}: MATLAB 7.3").File(file) as content:
        add(content, "")
    return found


def _own_arrays(value: object, before: str = "") -> dict[str, np.ndarray]:
    """Return the arrays among variables, also in structs, by name."""
    if isinstance(value, np.ndarray) and value.dtype.names and value.size == 1:
        value = {name: value[name].flat[0] for name in value.dtype.names}
    if isinstance(value, dict):
        parts = [_own_arrays(v, f"{before}.{k}") for k, v in value.items() if k[0] != "_"]
        return {key: array for part in parts for key, array in part.items()}
    return {before.removeprefix("."): value} if isinstance(value, np.ndarray) else {}


def _are_labels(values: np.ndarray) -> bool:
    """Return whether an array is `[H, W]` of whole numbers, at least 0."""
    if values.ndim != 2 or min(values.shape) < 2 or values.dtype.kind not in "biuf":
        return False
    whole = np.all(np.isfinite(values)) and np.all(values == np.round(values))
    return bool(whole and values.min() >= 0)
