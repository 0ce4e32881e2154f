"""ACDC, cardiac MRI: converts SSL4MIS's HDF5 files to 8-bit slices, masks and split files.

The lists are those of UniMatch's partitions (1, 3 and 7 labelled patients), of val, test and
valtest, below lists/ in the folder; only lists equal to the published ones, by hash, are written.
"""

import re
from collections.abc import Iterable
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np

from dataset.protocols import fingerprint, read_protocols
from dataset.split_files import sample_line, split_file_text
from tools.prepare.hdf5 import array_fault
from tools.prepare.official.archives import LARGEST, Archive, Download, Member
from tools.prepare.official.masks import png
from tools.prepare.official.run import Dataset, FileToMake, Plan, SampleSet, Tasks
from util.optional import import_optional

HDF5 = Download(
    "ACDC.zip", "ACDC", "github.com/HiLab-git/SSL4MIS, UniMatch's README", marker_path="data/slices"
)
CLASSES = 4
PARTITIONS = {"1": {99}, "3": {38, 50, 99}, "7": {21, 38, 49, 50, 58, 99, 100}}
"""Labelled patients of each partition."""
VAL = {2, 19, 28, 30, 39, 45, 78, 82, 85, 87}
TEST = {1, 7, 8, 11, 13, 22, 24, 33, 52, 59, 64, 65, 66, 68, 75, 80, 81, 83, 84, 93}
HELD_OUT = VAL | TEST
"""Patients of the volumes; slices are taken from all others, so that no slice is in two sets."""
HELD_OUT_LISTS = {"val": VAL, "test": TEST, "valtest": HELD_OUT}
SUFFIX = ".h5"
AXES = {2: "height x width", 3: "slices x height x width"}


def plan(found: dict[Download, Archive]) -> Plan:
    """Plan images/SET/*.png and masks/SET/*.png of the sets train and valtest, and lists/."""
    slices: dict[str, dict[str, tuple[Member, int | None]]] = {
        "train": {
            name: (member, None)
            for name, member in found[HDF5].files(f"data/slices/{{}}{SUFFIX}").items()
            if _patient(name) not in HELD_OUT | {0}
        },
        "valtest": {
            f"{name}_slice_{number + 1}": (member, number)
            for name, member in found[HDF5].files(f"data/{{}}{SUFFIX}").items()
            if "/" not in name and _patient(name) in HELD_OUT
            for number in range(_depth(member))
        },
    }

    def tasks(kind: str, name: str, convert: Any) -> Tasks:
        return {
            stem: FileToMake(f"{kind}/{name}/{stem}.png", member, partial(convert, number=number))
            for stem, (member, number) in slices[name].items()
        }

    sets = {
        name: SampleSet(tasks("images", name, image_png), tasks("masks", name, mask_png))
        for name in slices
    }
    lists, faults = _lists(slices["train"], slices["valtest"])
    faults = [f"{found[HDF5].path}: {fault}, so it is not written" for fault in faults]
    return Plan(sets, split_files=lists, faults=faults)


def image_png(content: bytes, number: int | None) -> bytes:
    """Convert a slice in [0, 1] to a PNG of 8 bits; raises `ValueError` for other values."""
    image = _slice(content, number)[0]
    if not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
        raise ValueError("its image has values beyond [0, 1]")
    return png(np.rint(image * 255).astype(np.uint8))


def mask_png(content: bytes, number: int | None) -> bytes:
    """Convert a mask to PNG; raises `ValueError` for a value without a class."""
    label = _slice(content, number)[1]
    strange = label[~np.isin(label, range(CLASSES))]
    if strange.size:
        raise ValueError(f"label {strange[0]:g}, expected a whole number, 0 to {CLASSES - 1}")
    return png(label.astype(np.uint8))


def _slice(content: bytes, number: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return image and label of a file with one slice (`number` is None), or of one slice of a
    volume."""
    if number is None:
        return _read(content, dimensions=2)
    image, label = _read(content, dimensions=3)
    return image[number], label[number]


def _read(content: bytes, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """Return image and label; raises `ValueError` for a missing array and different shapes."""
    with import_optional("h5py", "acdc").File(BytesIO(content)) as file:
        image, label = (_array(file, key, dimensions) for key in ("image", "label"))
    if image.shape != label.shape:
        raise ValueError(f"an image of shape {image.shape}, a label of {label.shape}")
    return image, label


def _array(file: Any, key: str, dimensions: int) -> np.ndarray:
    """Return the array of a key; raises `ValueError` for a missing key or other dimensions."""
    if key not in file:
        raise ValueError(f"no key '{key}', found {', '.join(file) or 'none'}")
    problem = array_fault(file, key, LARGEST)
    if not problem and (file[key].ndim != dimensions or not file[key].size):
        problem = f"is an array of shape {file[key].shape}"
    if problem:
        raise ValueError(f"'{key}' {problem}, expected an array of numbers, {AXES[dimensions]}")
    return file[key][()]


def _depth(member: Member) -> int:
    """Return the number of slices of a volume; raises `UserError` for a faulty one."""
    with member.reporting("is not a volume"):
        return len(_read(member.load(LARGEST), dimensions=3)[0])


def _lists(train: Iterable[str], valtest: Iterable[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Return the lines of each published split file by its path below the root, ordered by patient
    and slice, and descriptions of the lists that differ from the published ones."""
    chosen = {name: [s for s in valtest if _patient(s) in p] for name, p in HELD_OUT_LISTS.items()}
    for name, labeled in PARTITIONS.items():
        chosen[f"{name}/labeled"] = [s for s in train if _patient(s) in labeled]
        chosen[f"{name}/unlabeled"] = [s for s in train if _patient(s) not in labeled]
    lists, faults = {}, []
    for name, stems in chosen.items():
        if fault := _difference(name, stems):
            faults.append(fault)
            continue
        folder = "valtest" if name in HELD_OUT_LISTS else "train"
        paths = [f"{folder}/{stem}.png" for stem in sorted(stems, key=_numbers)]
        has_masks = not name.endswith("/unlabeled")
        lines = [sample_line(f"images/{p}", f"masks/{p}" if has_masks else None) for p in paths]
        lists[f"lists/{name}.txt"] = lines
    return lists, faults


def _patient(stem: str) -> int:
    """Return the number of the patient of patient099_frame01_slice_3; 0 for other names."""
    found = re.match(r"patient(\d+)_frame\d", stem)
    return int(found[1]) if found else 0


def _numbers(stem: str) -> tuple[int, ...]:
    """Return patient, frame and slice of patient099_frame01_slice_3."""
    return tuple(map(int, re.findall(r"\d+", stem)))


def _difference(name: str, stems: list[str]) -> str:
    """Describe how these slices (or their volumes) differ from the published list; "" if equal."""
    if name in HELD_OUT_LISTS:
        unit, files = "volumes", {f"data/{s.rpartition('_slice_')[0]}{SUFFIX}" for s in stems}
    else:
        unit, files = "slices", {f"data/slices/{stem}{SUFFIX}" for stem in stems}
    (expected,) = [p for p in read_protocols() if (p.dataset, p.name) == ("acdc", name)]
    published = expected.fingerprint
    if fingerprint(split_file_text(sorted(files))) == published:
        return ""
    if len(files) < published.entries:
        return f"incomplete: list {name} has {len(files)} of {published.entries} {unit}"
    return f"list {name} has other {unit} than the published list"


ACDC = Dataset(__doc__, ((HDF5,),), {"train": 1312, "valtest": 590}, plan)
