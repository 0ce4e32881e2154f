"""Predict the validation images with a run's best checkpoint, and find the best and worst."""

import math
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from tqdm import tqdm

from dataset import bands
from dataset.folders import read_samples
from dataset.reader import Reader
from dataset.samples import Sample
from inference.evaluation import Scores, confusion_matrix
from inference.evaluation_files import image_miou
from inference.overlay import overlay, side_by_side
from inference.predictor import Predictor
from metrics.bootstrap import class_counts
from model.files import best_checkpoint
from model.trained import load_trained
from tools.results.runs import Run
from util.errors import UserError

THUMBNAIL = 240
"""Pixels of the longer side of a picture."""


class Judged(NamedTuple):
    """A validation image with its score and prediction."""

    name: str
    miou: float
    """In percent, over the classes in its mask or prediction."""
    mask: np.ndarray
    """The prediction."""
    sample: Sample


class Judgement(NamedTuple):
    """Scores of all validation images, and the best and worst images; no image is both."""

    scores: Scores
    images: int
    best: list[Judged]
    worst: list[Judged]


def judge(run: Run, network: str, device: torch.device, shown: int, limit: int | None) -> Judgement:
    """Predict the validation images (the first `limit`) as validation does, except that
    `center_crop` predicts the whole image here.

    Raises `UserError` where the checkpoint or the data are missing.
    """
    config = run.config
    samples = read_samples(config.data.val, config.data, masks=True).samples[:limit]
    model = load_trained(config, best_checkpoint(run.path, network), network, device)
    predictor = Predictor(model, config, device)
    reader, classes = Reader(config.data), config.num_classes
    total, counts = torch.zeros(classes, classes, dtype=torch.int64), []
    best: list[Judged] = []
    worst: list[Judged] = []
    judged = 0
    for sample in tqdm(samples, "validation images", disable=None, leave=False):
        image, truth = reader.both(sample)
        mask = predictor.mask(image)
        predicted, target = torch.from_numpy(mask), torch.from_numpy(np.array(truth))
        total += (of_image := confusion_matrix(predicted, target, classes))
        counts.append(class_counts(of_image))
        miou = image_miou(counts[-1])
        if miou == math.inf:  # nothing in it is labelled
            continue
        one, judged = Judged(sample.image, 100 * miou, mask, sample), judged + 1
        best = sorted([one, *best], key=lambda j: -j.miou)[:shown]  # of equal ones the last,
        worst = sorted([*worst, one], key=lambda j: j.miou)[:shown]  # the first: none is both
    best = best[: (judged + 1) // 2]
    scores = Scores(total, counts=torch.stack(counts))
    return Judgement(scores, len(samples), best, worst[: judged - len(best)])


def pictures(run: Run, some: list[Judged]) -> list[tuple[Image.Image, str]]:
    """Return image (of all dates), truth and prediction side by side, with captions; all of the
    same size."""
    reader, data = Reader(run.config.data), run.config.data
    rows = []
    for judged in some:
        try:
            pixels, truth = reader.both(judged.sample)
        except UserError:  # changed since it was predicted
            continue
        dates, masks = bands.pictures(pixels, data), (np.array(truth), judged.mask)
        row = [*dates, *(overlay(dates[-1], mask, data, 0.65) for mask in masks)]
        rows.append((row, f"{judged.name}: mIoU {judged.miou:.1f}"))
    sizes = np.array([row[0].size for row, _ in rows]).reshape(-1, 2)
    box = (sizes * THUMBNAIL / sizes.max(1, keepdims=True)).max(0, initial=1).round().astype(int)
    width, height = box.tolist()

    def fit(part: Image.Image) -> Image.Image:
        return ImageOps.pad(part, (width, height), Image.Resampling.LANCZOS, "white")

    return [(side_by_side([[*map(fit, row)]]), text) for row, text in rows]
