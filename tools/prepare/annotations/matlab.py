"""MATLAB's .mat files, each with an array of labels."""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from dataset.image_files import MAX_MEGAPIXELS
from tools.prepare.annotations.types import (
    Annotations,
    LabelImage,
    label_image_annotations,
    numbered_classes,
)
from tools.prepare.hdf5 import array_fault
from util.errors import UserError, reason
from util.optional import import_optional

NAMES = ("LabelMap", "Segmentation", "S", "label", "labels", "labelmap", "mask", "gt")
"""Names of the array of labels in a file with several arrays."""
HEADER = 116
"""Bytes of text at the start of a .mat file."""
LARGEST = 8 * MAX_MEGAPIXELS * 10**6
"""Bytes of an array of doubles."""


def read_matlab(files: list[Path], root: Path) -> Annotations:
    """Read a `.mat` file per image (up to MATLAB 7.3) with an array of labels `[H, W]`; value v is
    the class `class_v`, 255 is ignored."""
    return Annotations("MATLAB arrays", label_image_annotations(files, root, _read_array))


def _read_array(file: Path) -> LabelImage:
    try:
        found = _hdf5_arrays(file) if _is_hdf5(file) else _own_arrays(loadmat(file))
    except UserError:
        raise
    except Exception as error:  # damaged files raise any exception
        raise UserError(f"{file}: not a readable .mat file ({reason(error)})") from None
    found = {key: values for key, values in found.items() if _are_labels(values)}
    likely = [key for key in found if key.rpartition(".")[2] in NAMES]
    if len(found) != 1 and len(likely) != 1:
        raise UserError(f"{file}: found {len(found)} arrays of whole numbers ({', '.join(found)}); "
                        "expected one, [H, W]")  # fmt: skip
    values = found[(likely if len(likely) == 1 else list(found))[0]].astype(np.int64)
    return LabelImage(values, numbered_classes(values))


def _is_hdf5(file: Path) -> bool:
    """Return True if MATLAB wrote a file with -v7.3: HDF5 after a header of text."""
    with file.open("rb") as content:
        return b"MATLAB 7.3" in content.read(HEADER)


def _hdf5_arrays(file: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a MATLAB 7.3 file, also in structs, by name; texts are none."""
    found: dict[str, np.ndarray] = {}

    def add(group: Any, before: str = "") -> None:
        for name in (name for name in group if name[0] != "#"):  # "#refs#": contents of cells
            problem = array_fault(group, name, LARGEST)
            if problem == "is a group":
                add(group[name], f"{before}{name}.")
            elif not problem and group[name].attrs.get("MATLAB_class") != b"char":
                found[before + name] = group[name][()].T  # MATLAB stores columns first

    with import_optional("h5py", f"{file}: MATLAB 7.3").File(file) as content:
        add(content)
    return found


def _own_arrays(variables: dict[str, Any], before: str = "") -> dict[str, np.ndarray]:
    """Return the arrays among variables, also in structs, by name."""
    found: dict[str, np.ndarray] = {}
    for name, value in variables.items():
        if isinstance(value, np.ndarray) and value.dtype.names and value.size == 1:
            fields = dict(zip(value.dtype.names, value.flat[0], strict=True))
            found |= _own_arrays(fields, f"{before}{name}.")
        elif isinstance(value, np.ndarray):
            found[before + name] = value
    return found


def _are_labels(values: np.ndarray) -> bool:
    """Return True if an array is `[H, W]` of whole numbers, at least 0."""
    if values.ndim != 2 or min(values.shape) < 2 or values.dtype.kind not in "biuf":
        return False
    whole = np.all(np.isfinite(values)) and np.all(values == np.round(values))
    return bool(whole and values.min() >= 0)
