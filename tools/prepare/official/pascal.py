"""Pascal VOC 2012 with the augmented training set: VOC's masks, and SBD's where VOC has none."""

from io import BytesIO

from scipy.io import loadmat

from tools.prepare.official.archives import Archive, Download
from tools.prepare.official.masks import png
from tools.prepare.official.run import Dataset, Plan, SampleSet, tasks_of

LISTS = "ImageSets/Segmentation"
VOC = Download(
    "VOCtrainval_11-May-2012.tar",
    "VOCdevkit/VOC2012",
    "PASCAL VOC 2012, development kit: host.robots.ox.ac.uk/pascal/VOC/voc2012",
    marker_path=LISTS,
)
SBD = Download(
    "benchmark.tgz",
    "benchmark_RELEASE/dataset",
    "Semantic Boundaries Dataset and Benchmark, Berkeley",
    marker_path="cls",
)
READY = Download(
    "SegmentationClassAug.zip",
    "SegmentationClassAug",
    "the same masks as PNG, as DeepLab's users share them",
)


def plan(found: dict[Download, Archive]) -> Plan:
    """Plan JPEGImages/*.jpg, SegmentationClass/*.png, and VOC's lists of names as they are.

    Training images are VOC's, and all of SBD's that are not validation images of VOC. With both
    SBD and its masks as PNG, SBD is used.
    """
    voc, sbd, ready = (found[download] for download in (VOC, SBD, READY))
    images = tasks_of(voc, "JPEGImages/{}.jpg")
    target = "SegmentationClass/{}.png"
    augmented = tasks_of(ready, "{}.png", target) | tasks_of(sbd, "cls/{}.mat", target, sbd_mask)
    masks = augmented | tasks_of(voc, target)
    val = {*voc.text(f"{LISTS}/val.txt").split()}
    train = {*voc.text(f"{LISTS}/train.txt").split(), *augmented}
    for name in {"train.txt", "val.txt"} & sbd.members.keys():
        train.update(sbd.text(name).split())

    def part(names: set[str]) -> SampleSet:
        own_images, own_masks = ({n: t[n] for n in t.keys() & names} for t in (images, masks))
        return SampleSet(own_images, own_masks)

    listed = tasks_of(voc, f"{LISTS}/{{}}.txt")
    return Plan({"train": part(train - val), "val": part(val)}, tuple(listed.values()))


def sbd_mask(mat: bytes) -> bytes:
    """Return the class mask in one of SBD's .mat files, GTcls.Segmentation, as PNG."""
    try:
        return png(loadmat(BytesIO(mat))["GTcls"]["Segmentation"][0, 0])
    except Exception as error:  # damaged files raise any exception
        raise ValueError(f"not one of SBD's .mat files: {error}") from None


PASCAL = Dataset(__doc__, ((VOC,), (SBD, READY)), {"train": 10582, "val": 1449}, plan)
