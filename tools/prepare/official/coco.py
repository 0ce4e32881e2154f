"""COCO 2017: images as they are, masks of its 80 things from the official annotations.

Class 0 is void, 1 to 80 are the things in the order of their category ids. With both annotations,
the panoptic ones are used: in them annotators decided which thing is in front. Instances overlap:
the smaller is drawn over the larger, crowds below all others; a crowd has the class of its members.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tools.prepare.annotations.shapes import decoded, polygons, run_lengths
from tools.prepare.official.archives import Archive, Download, Member, read_zip
from tools.prepare.official.masks import open_bytes, png
from tools.prepare.official.run import Dataset, FileToMake, Plan, SampleSet, Tasks, tasks_of

PAGE = "cocodataset.org, Download"
IMAGES = {split: Download(f"{split}.zip", split, PAGE) for split in ("train2017", "val2017")}
INSTANCES = Download(
    "annotations_trainval2017.zip", "annotations", PAGE, marker_path="instances_val2017.json"
)
PANOPTIC = Download(
    "panoptic_annotations_trainval2017.zip",
    "annotations",
    PAGE,
    marker_path="panoptic_val2017.json",
)
THINGS = 80
OTHER = "is not COCO's annotations of 2017"


class Instance(NamedTuple):
    """An instance; `shape` is a list of polygons or a run-length encoding."""

    label: int
    crowd: bool
    area: float
    shape: Any


class ImageInstances(NamedTuple):
    """The instances of an image."""

    height: int
    width: int
    regions: list[Instance]


def plan(found: dict[Download, Archive]) -> Plan:
    """Plan train2017/*.jpg, val2017/*.jpg and masks/*.png of both."""
    masks = {split: _panoptic(found[PANOPTIC], split) for split in IMAGES}
    if found[INSTANCES].members and not any(masks.values()):  # one kind in all splits
        masks = {split: _instances(found[INSTANCES], split) for split in IMAGES}
    return Plan({
        split: SampleSet(tasks_of(found[download], "{}.jpg", f"{split}/{{}}.jpg"), masks[split])
        for split, download in IMAGES.items()
    })  # fmt: skip


def _instances(annotations: Archive, split: str) -> Tasks:
    """Plan masks from instances_*.json; names are image ids of 12 digits."""
    listed = annotations.members.get(f"instances_{split}.json")
    if listed is None:
        return {}
    archive = Archive(annotations.path / listed.name, annotations.title)
    with listed.reporting(OTHER):
        tree = json.loads(listed.text())
        classes = _thing_classes(tree["categories"])
        pictures = {i["id"]: ImageInstances(i["height"], i["width"], []) for i in tree["images"]}
        for entry in tree["annotations"]:
            label, crowd = classes[entry["category_id"]], bool(entry["iscrowd"])
            region = Instance(label, crowd, entry["area"], entry["segmentation"])
            pictures[entry["image_id"]].regions.append(region)
        for number, picture in pictures.items():
            archive.add(f"{number:012d}", partial(ImageInstances._make, picture))
    return tasks_of(archive, "{}", "masks/{}.png", instance_mask)


def _panoptic(annotations: Archive, split: str) -> Tasks:
    listed = annotations.members.get(f"panoptic_{split}.json")
    pngs = _panoptic_pngs(annotations, f"panoptic_{split}")
    if listed is None or not pngs:
        return {}
    tasks = {}
    with listed.reporting(OTHER):
        tree = json.loads(listed.text())
        classes = _thing_classes(tree["categories"])
        for annotation in tree["annotations"]:
            name = Path(annotation["file_name"]).stem
            if name in pngs:
                segments = {
                    segment["id"]: classes[segment["category_id"]]
                    for segment in annotation["segments_info"]
                    if segment["category_id"] in classes
                }
                convert = partial(panoptic_mask, segments=segments)
                tasks[name] = FileToMake(f"masks/{name}.png", pngs[name], convert)
    return tasks


def _panoptic_pngs(annotations: Archive, folder: str) -> dict[str, Member]:
    """Return the PNG files of a split, from an archive within the archive."""
    packed = annotations.members.get(f"{folder}.zip")
    if packed is None:
        return annotations.files(f"{folder}/{{}}.png")
    with annotations.reporting("cannot be read"):
        file = packed.file()
    if isinstance(file, Path):
        file = file.open("rb")
    path = annotations.path / packed.name
    return read_zip(path, annotations.title, folder, file).files("{}.png")


def _thing_classes(categories: list[dict[str, Any]]) -> dict[int, int]:
    """Map category ids of things (the ids have gaps) to 1 .. 80; all of instances are things."""
    things = sorted(c["id"] for c in categories if c.get("isthing", 1))
    if len(things) != THINGS:
        raise ValueError(f"{len(things)} things, expected {THINGS}")
    return {number: label for label, number in enumerate(things, start=1)}


def instance_mask(picture: ImageInstances) -> bytes:
    """Draw a PNG: crowds first, then the others by decreasing area, each over the previous ones."""
    mask = np.zeros((picture.height, picture.width), np.uint8)
    for region in sorted(picture.regions, key=lambda r: (not r.crowd, -r.area)):
        if isinstance(region.shape, dict):
            mask[decoded(run_lengths(region.shape, *mask.shape))] = region.label
        elif parts := [part for part in region.shape if len(part) >= 6]:  # four numbers make a box
            mask[decoded(polygons(parts, *mask.shape))] = region.label
    return png(mask)


def panoptic_mask(picture: bytes, segments: dict[int, int]) -> bytes:
    """Convert a PNG whose colours are segment ids, R + 256 G + 65536 B, to one of classes.
    `segments`: class of each id of a thing; all other pixels are void."""
    with open_bytes(picture) as image:
        if image.mode != "RGB":
            raise ValueError(f"mode {image.mode}, expected the colours of segments, RGB")
        numbers = np.asarray(image).astype(np.uint32) @ np.array([1, 256, 65536], np.uint32)
    mask = np.zeros(numbers.shape, np.uint8)
    for number, label in segments.items():
        mask[numbers == number] = label
    return png(mask)


COCO = Dataset(
    __doc__,
    (*((download,) for download in IMAGES.values()), (PANOPTIC, INSTANCES)),
    {"train2017": 118287, "val2017": 5000},
    plan,
)
