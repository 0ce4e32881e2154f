"""Cityscapes: images as they are, masks from the 34 label ids to the 19 train ids."""

from pathlib import Path

import numpy as np

from tools.prepare.official.archives import Download, find_all
from tools.prepare.official.masks import png, read_indices
from tools.prepare.official.run import Plan, Set, tasks_of
from util.config.types import IGNORE

PAGE = "cityscapes-dataset.com, Downloads, after registration"
IMAGES = Download("leftImg8bit_trainvaltest.zip", "leftImg8bit", PAGE)
MASKS = Download("gtFine_trainvaltest.zip", "gtFine", PAGE)
COUNTS = {"train": 2975, "val": 500}
# Label ids in the order of the train ids: road, sidewalk, building, ... bicycle.
TRAINED = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
TRAIN_IDS = np.full(256, IGNORE, np.uint8)
TRAIN_IDS[TRAINED] = np.arange(len(TRAINED))


def plan(source: Path, partial: bool) -> Plan:
    """Plan leftImg8bit/SET/CITY/*_leftImg8bit.png, gtFine/SET/CITY/*_gtFine_labelTrainIds.png."""
    found = find_all(source, [(IMAGES,), (MASKS,)], partial)
    sets = {}
    for name in COUNTS:
        images = found[IMAGES].files(name, "_leftImg8bit.png")
        masks = found[MASKS].files(name, "_gtFine_labelIds.png")
        sets[name] = Set(
            tasks_of(images, f"leftImg8bit/{name}/{{}}_leftImg8bit.png"),
            tasks_of(masks, f"gtFine/{name}/{{}}_gtFine_labelTrainIds.png", train_ids),
            IMAGES.archive,
            MASKS.archive,
        )
    return Plan(sets)


def train_ids(mask: bytes) -> bytes:
    """Convert a mask of label ids to train ids; other classes are ignored."""
    return png(TRAIN_IDS[read_indices(mask)])
