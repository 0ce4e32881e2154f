"""Cityscapes: images as they are, masks from the 34 label ids to the 19 train ids.

Masks that are train ids already (*_labelTrainIds.png) are taken as they are.
"""

import numpy as np

from tools.prepare.official.archives import Archive, Download
from tools.prepare.official.masks import png, read_indices
from tools.prepare.official.run import Dataset, Plan, SampleSet, tasks_of
from util.config.types import IGNORE

PAGE = "cityscapes-dataset.com, Downloads, after registration"
IMAGES = Download("leftImg8bit_trainvaltest.zip", "leftImg8bit", PAGE)
MASKS = Download("gtFine_trainvaltest.zip", "gtFine", PAGE)
# Label ids in the order of the train ids: road, sidewalk, building, ... bicycle.
TRAINED = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
TRAIN_IDS = np.full(256, IGNORE, np.uint8)
TRAIN_IDS[TRAINED] = np.arange(len(TRAINED))


def plan(found: dict[Download, Archive]) -> Plan:
    """Plan leftImg8bit/SET/CITY/*_leftImg8bit.png, gtFine/SET/CITY/*_gtFine_labelTrainIds.png."""
    sets = {}
    for name in CITYSCAPES.counts:
        image, mask = f"{name}/{{}}_leftImg8bit.png", f"{name}/{{}}_gtFine_label"
        sets[name] = SampleSet(
            tasks_of(found[IMAGES], image, f"leftImg8bit/{image}"),
            tasks_of(found[MASKS], f"{mask}Ids.png", f"gtFine/{mask}TrainIds.png", train_ids)
            | tasks_of(found[MASKS], f"{mask}TrainIds.png", f"gtFine/{mask}TrainIds.png"),
        )
    return Plan(sets)


def train_ids(mask: bytes) -> bytes:
    """Convert a mask of label ids to train ids; other classes are ignored."""
    return png(TRAIN_IDS[read_indices(mask)])


CITYSCAPES = Dataset(__doc__, ((IMAGES,), (MASKS,)), {"train": 2975, "val": 500}, plan)
