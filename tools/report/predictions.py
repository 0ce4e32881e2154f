"""Predict the validation images with a run's best checkpoint, and find the best and worst."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from dataset import bands
from dataset.folders import read_samples
from dataset.loaders import Process, evaluation_loader
from dataset.overlap import changed_since_training
from dataset.reader import Reader
from dataset.samples import Sample
from inference.evaluation import Scores, confusion_matrix, evaluate, volume_indices
from inference.evaluation_files import image_miou
from inference.overlay import overlay, side_by_side
from metrics.confusion import class_counts
from model.files import best_checkpoint
from model.trained import load_trained
from tools.results.runs import Run
from util.errors import UserError

THUMBNAIL = 240
"""Pixels of the longer side of a picture."""


class ScoredImage(NamedTuple):
    """A validation image with its score and prediction."""

    name: str
    miou: float
    """In percent, over the classes in its mask or prediction."""
    mask: np.ndarray
    """The prediction."""
    sample: Sample


class ImageScores:
    """Scores of the validation images, and the `shown` best and worst of them; no image is both.

    A `Watcher` of `inference.evaluation.evaluate`, which returns the `scores`.
    """

    scores: Scores

    def __init__(self, samples: Sequence[Sample], shown: int, num_classes: int, mode: str):
        self.mode = mode
        """The mode of prediction."""
        self.images, self._samples, self._shown = len(samples), samples, shown
        self._num_classes = num_classes
        self._ranked: list[ScoredImage] = []

    def add(self, index: int, predicted: Tensor, target: Tensor) -> None:
        """Take an image: its index, predicted classes and mask `[H, W]`."""
        counts = class_counts(confusion_matrix(predicted, target, self._num_classes))
        miou = image_miou(counts)
        if miou < math.inf:  # else no pixel is labelled
            mask, sample = predicted.cpu().numpy().astype(np.uint8), self._samples[index]
            self._ranked.insert(0, ScoredImage(sample.image, 100 * miou, mask, sample))
            self._ranked.sort(key=lambda image: -image.miou)
            del self._ranked[self._shown : -self._shown]  # between the best and the worst

    @property
    def best(self) -> list[ScoredImage]:
        return self._ranked[: min(self._shown, (len(self._ranked) + 1) // 2)]

    @property
    def worst(self) -> list[ScoredImage]:
        """The worst image first."""
        return self._ranked[len(self.best) :][::-1][: self._shown]


def predict_validation(
    run: Run, network: str, device: torch.device, shown: int, limit: int | None
) -> ImageScores:
    """Predict the validation images (the first `limit`) as validation does, except that
    `center_crop` predicts the whole image here.

    Raises `UserError` where the checkpoint or the data are missing, or the images have changed.
    """
    config, mode = run.config, run.config.evaluation.mode
    mode = "original" if mode == "center_crop" else mode
    listed = read_samples(config.data.val, config.data, masks=True)
    if problem := changed_since_training(run.path, listed):
        raise UserError(problem)
    samples = listed.samples[:limit]
    process = Process(rank=0, world=1, workers=0, cuda=device.type == "cuda")
    loader = evaluation_loader(config, samples, process)
    scores = ImageScores(samples, shown, config.num_classes, mode)
    scores.scores = evaluate(
        load_trained(config, best_checkpoint(run.path, network), network, device),
        tqdm(loader, "validation images", disable=None, leave=False),
        config,
        mode=mode,
        device=device,
        volumes=volume_indices([s.image for s in samples], config.evaluation.volume_pattern),
        watchers=[scores],
    )
    return scores


def compared_pictures(run: Run, some: list[ScoredImage]) -> list[tuple[Image.Image, str]]:
    """Return image (of all dates), truth and prediction side by side, with captions; all of the
    same size."""
    reader, data = Reader(run.config.data), run.config.data
    rows = []
    for image in some:
        try:
            pixels, truth = reader.both(image.sample)
        except UserError:  # changed since it was predicted
            continue
        dates, masks = bands.pictures(pixels, data), (np.array(truth), image.mask)
        row = [*dates, *(overlay(dates[-1], mask, data, 0.65) for mask in masks)]
        rows.append((row, f"{image.name}: mIoU {image.miou:.1f}"))
    sizes = np.array([row[0].size for row, _ in rows]).reshape(-1, 2)
    box = (sizes * THUMBNAIL / sizes.max(1, keepdims=True)).max(0, initial=1).round().astype(int)
    width, height = box.tolist()

    def fit(part: Image.Image) -> Image.Image:
        return ImageOps.pad(part, (width, height), Image.Resampling.LANCZOS, "white")

    return [(side_by_side([[*map(fit, row)]]), text) for row, text in rows]
