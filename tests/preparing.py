"""Datasets of tests/miniature.py with the modules that prepare them."""

from pathlib import Path

import pytest

from tests import miniature
from tools.prepare.official.ade20k import ADE20K
from tools.prepare.official.camvid import CAMVID
from tools.prepare.official.cityscapes import CITYSCAPES
from tools.prepare.official.coco import COCO
from tools.prepare.official.output import RECORD
from tools.prepare.official.pascal import PASCAL
from tools.prepare.official.run import prepare

CASES = {
    "pascal": (PASCAL, miniature.pascal, {"train": 4, "val": 1}),
    "pascal_ready": (PASCAL, lambda: miniature.pascal(ready=True), {"train": 4, "val": 1}),
    "cityscapes": (CITYSCAPES, miniature.cityscapes, {"train": 2, "val": 1}),
    "coco_instances": (COCO, lambda: miniature.coco("instances"), {"train2017": 2, "val2017": 1}),
    "coco_panoptic": (COCO, lambda: miniature.coco("panoptic"), {"train2017": 2, "val2017": 1}),
    "coco_both": (COCO, lambda: miniature.coco("instances", "panoptic"),
                  {"train2017": 2, "val2017": 1}),
    "ade20k": (ADE20K, miniature.ade20k, {"training": 2, "validation": 1}),
    "camvid": (CAMVID, miniature.camvid, {"train": 1, "val": 1, "test": 1}),
}  # fmt: skip


class Case:
    """Miniature downloads of a dataset, packed in `source`, and the folder to fill, `root`."""

    def __init__(self, name: str, folder: Path, monkeypatch):
        self.dataset, make, counts = CASES[name]
        self.name = name.partition("_")[0]
        self.archives, self.masks = make()
        monkeypatch.setattr(self.dataset, "counts", counts)
        self.source = miniature.pack(self.archives, folder / "downloads")
        self.root = folder / "root"

    def run(self, source=None, root=None, jobs=2, partial=False):
        prepare(self.dataset, source or self.source, root or self.root, jobs, partial)


def with_cases(*names):
    return pytest.mark.parametrize("case", names, indirect=True)


def files(root):
    return {
        str(p.relative_to(root)): p.read_bytes()
        for p in root.rglob("*")
        if p.is_file() and p.name != RECORD
    }
