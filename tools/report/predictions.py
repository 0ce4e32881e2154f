"""Predict the validation images with a run's best checkpoint, and show the best and worst."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps

from dataset import bands
from dataset.folders import read_samples
from dataset.loaders import ProcessInfo, evaluation_loader
from dataset.overlap import changed_since_training
from dataset.reader import Reader
from dataset.samples import Sample
from inference.evaluation import evaluate, volume_indices, with_bar
from inference.evaluation_files import worst_images
from inference.overlay import overlay, side_by_side
from inference.predictor import Predictor
from inference.scores import Scores
from model.files import best_checkpoint
from model.trained import load_trained
from tools.results.runs import Run
from util.errors import UserError

THUMBNAIL = 240
"""Pixels of the longer side of a picture."""
RankedImage = tuple[int, float]
"""Index of a validation image, and its mean IoU in [0, 1]."""


class Predictions(NamedTuple):
    """Scores of the validation images, and the predictor to predict some of them again."""

    scores: Scores
    samples: Sequence[Sample]
    predictor: Predictor


def predict_validation(
    run: Run, which: str, device: torch.device, limit: int | None
) -> Predictions:
    """Predict the validation images (the first `limit`) as validation does, except that
    `center_crop` predicts the whole image here.

    Raises `UserError` where the checkpoint or the data are missing, or the images have changed.
    """
    evaluation = run.config.evaluation
    mode = "original" if evaluation.mode == "center_crop" else evaluation.mode
    evaluation = evaluation.model_copy(update={"mode": mode})
    config = run.config.model_copy(update={"evaluation": evaluation})
    listed = read_samples(config.data.val, config.data, masks=True)
    if problem := changed_since_training(run.path, listed):
        raise UserError(problem)
    samples = listed.samples[:limit]
    network = load_trained(config, best_checkpoint(run.path, which), which, device)
    process = ProcessInfo(rank=0, world=1, workers=0, cuda=device.type == "cuda")
    loader = evaluation_loader(config, samples, process)
    scores = evaluate(
        network,
        with_bar(loader, "validation images"),
        config,
        mode=mode,
        device=device,
        volumes=volume_indices([s.image for s in samples], config.evaluation.volume_pattern),
    )
    return Predictions(scores, samples, Predictor(network, config, device))


def best_and_worst(
    predictions: Predictions, shown: int
) -> tuple[list[RankedImage], list[RankedImage]]:
    """Return up to `shown` best images, the best first, and as many worst; no image is both."""
    ranked = worst_images(predictions.scores, len(predictions.samples))
    best = ranked[::-1][: min(shown, (len(ranked) + 1) // 2)]
    return best, ranked[: min(shown, len(ranked) - len(best))]


def compared_pictures(
    predictions: Predictions, images: Sequence[RankedImage]
) -> list[tuple[Image.Image, str]]:
    """Return image (of all dates), truth and prediction side by side, with captions; all of the
    same size."""
    data = predictions.predictor.config.data
    reader, rows = Reader(data), []
    for index, miou in images:
        sample = predictions.samples[index]
        try:
            pixels, truth = reader.image_and_mask(sample)
        except UserError:  # changed since it was scored
            continue
        previews = bands.rgb_previews(pixels, data)
        masks = truth, predictions.predictor.mask(pixels)
        row = [*previews, *(overlay(previews[-1], np.array(mask), data, 0.65) for mask in masks)]
        rows.append((row, f"{sample.image}: mIoU {100 * miou:.1f}"))
    sizes = np.array([row[0].size for row, _ in rows]).reshape(-1, 2)
    box = (sizes * THUMBNAIL / sizes.max(1, keepdims=True)).max(0, initial=1).round().astype(int)
    width, height = box.tolist()

    def fit(part: Image.Image) -> Image.Image:
        return ImageOps.pad(part, (width, height), Image.Resampling.LANCZOS, "white")

    return [(side_by_side([[*map(fit, row)]]), text) for row, text in rows]
