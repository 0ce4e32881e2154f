"""COCO 2017: images as they are, masks of its 80 things from the official annotations.

Class 0 is void, 1 to 80 are the things in the order of their category ids. Where both annotations
are given the panoptic ones win: in them annotators decided which thing is in front. Of instances,
which overlap, the smaller is painted over the larger, and crowds below all; a crowd has the
class of its members.
"""

from functools import partial as bind
from pathlib import Path

from tools.prepare.official.archives import Archive, Download, Member, find_all, read_zip
from tools.prepare.official.coco_annotations import (
    instance_mask,
    instances,
    panoptic_mask,
    read_json,
    thing_classes,
)
from tools.prepare.official.plan import Plan, Set, Task, pair, tasks_of

PAGE = "cocodataset.org, Download"
IMAGES = {split: Download(f"{split}.zip", split, PAGE) for split in ("train2017", "val2017")}
INSTANCES = Download(
    "annotations_trainval2017.zip", "annotations", PAGE, sign="instances_val2017.json"
)
PANOPTIC = Download(
    "panoptic_annotations_trainval2017.zip", "annotations", PAGE, sign="panoptic_val2017.json"
)
COUNTS = {"train2017": 118287, "val2017": 5000}


def plan(source: Path, partial: bool) -> Plan:
    """train2017/*.jpg, val2017/*.jpg and masks/*.png of both."""
    needed = [*((download,) for download in IMAGES.values()), (PANOPTIC, INSTANCES)]
    found = find_all(source, needed, partial)
    sets = {}
    for split, download in IMAGES.items():
        images = tasks_of(found[download].files("", ".jpg"), f"{split}/{{}}.jpg")
        masks = _panoptic(found[PANOPTIC], split) or _instances(found[INSTANCES], split)
        origin = PANOPTIC if found[PANOPTIC].members else INSTANCES
        sets[split] = Set(pair(images, masks), download.archive, origin.archive)
    return Plan(sets)


def _instances(annotations: Archive, split: str) -> dict[str, Task]:
    listed = annotations.members.get(f"instances_{split}.json")
    if listed is None:
        return {}
    return tasks_of(instances(listed), "masks/{}.png", instance_mask)


def _panoptic(annotations: Archive, split: str) -> dict[str, Task]:
    listed = annotations.members.get(f"panoptic_{split}.json")
    pngs = _panoptic_pngs(annotations, f"panoptic_{split}")
    if listed is None or not pngs:
        return {}
    tree = read_json(listed, "annotations", "categories")
    classes = thing_classes(tree["categories"])
    tasks = {}
    for annotation in tree["annotations"]:
        name = Path(annotation["file_name"]).stem
        if name in pngs:
            segments = {
                segment["id"]: classes[segment["category_id"]]
                for segment in annotation["segments_info"]
                if segment["category_id"] in classes
            }
            convert = bind(panoptic_mask, segments=segments)
            tasks[name] = Task(f"masks/{name}.png", pngs[name], convert)
    return tasks


def _panoptic_pngs(annotations: Archive, folder: str) -> dict[str, Member]:
    """Return the pictures of a split, from an archive within the archive."""
    packed = annotations.members.get(f"{folder}.zip")
    if packed is None:
        return annotations.files(folder, ".png")
    with annotations.readable():
        file = packed.file()
    path = annotations.path / packed.name
    if isinstance(file, Path):
        file = file.open("rb")
    return read_zip(path, annotations.title, folder, file).files("", ".png")
