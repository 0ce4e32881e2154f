"""What a run's best checkpoint gets right and wrong of the validation images, one by one."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from dataset import bands
from dataset.folders import read_samples
from dataset.reader import Reader
from dataset.samples import Sample
from inference.evaluation import Scores, confusion_matrix
from inference.overlay import overlay, side_by_side
from inference.predictor import Predictor
from inference.worst_images import image_miou
from model.files import best_checkpoint
from model.trained import load_trained
from tools.results.runs import Run
from util.errors import UserError

THUMBNAIL = 240  # pixels, the longer side


class Judged(NamedTuple):
    """A validation image: its score, and the picture of image, truth and prediction."""

    name: str
    miou: float
    """In percent, over the classes in its mask or prediction."""
    mask: np.ndarray
    """The prediction."""
    sample: Sample


class Judgement(NamedTuple):
    """All validation images together, and those of them with a label that came out best and
    worst."""

    scores: Scores
    images: int
    best: list[Judged]
    worst: list[Judged]


def judge(run: Run, network: str, device: torch.device, shown: int, limit: int | None) -> Judgement:
    """Predict the validation images (the first `limit`) as validation does, but for a centre crop,
    which is of the whole image here.

    Raises `UserError` where the checkpoint or the data are not there.
    """
    config = run.config
    samples = read_samples(config.data.val, config.data, masks=True).samples[:limit]
    model = load_trained(config, best_checkpoint(run.path, network), network, device)
    predictor = Predictor(model, config, device)
    reader, classes = Reader(config.data), config.num_classes
    total = torch.zeros(classes, classes, dtype=torch.int64)
    best: list[Judged] = []
    worst: list[Judged] = []
    for sample in tqdm(samples, "validation images", disable=None, leave=False):
        image, truth = reader.both(sample)
        mask = predictor.mask(image)
        predicted, target = torch.from_numpy(mask), torch.from_numpy(np.array(truth))
        total += confusion_matrix(predicted, target, classes)
        miou = image_miou(predicted, target)
        if miou == math.inf:  # nothing in it is labelled
            continue
        judged = Judged(sample.image, 100 * miou, mask, sample)
        best = sorted([*best, judged], key=lambda j: -j.miou)[:shown]
        worst = sorted([*worst, judged], key=lambda j: j.miou)[:shown]
    return Judgement(Scores(total), len(samples), best, worst)


def pictures(run: Run, some: list[Judged]) -> Iterator[tuple[Image.Image, str]]:
    """Image (of all dates), truth and prediction side by side, with a caption."""
    reader, data = Reader(run.config.data), run.config.data
    for judged in some:
        try:
            pixels, truth = reader.both(judged.sample)
        except UserError:  # changed since it was predicted
            continue
        dates, masks = bands.pictures(pixels, data), (np.array(truth), judged.mask)
        row = [*dates, *(overlay(dates[-1], mask, data, 0.65) for mask in masks)]
        width, height = dates[0].size
        scale = THUMBNAIL / max(width, height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = [part.resize(size, Image.Resampling.LANCZOS) for part in row]
        yield side_by_side([small]), f"{judged.name}: mIoU {judged.miou:.1f}"
