"""Files that evaluate.py writes: tables of scores, the confusion matrix, the worst images."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dataset.bands import rgb_previews
from dataset.reader import Reader
from dataset.samples import Sample
from inference.evaluation import center_crop
from inference.overlay import (
    class_shares,
    overlay,
    percent,
    save_picture,
    side_by_side,
    with_legend,
)
from inference.predictor import Predictor
from inference.scores import Scores
from metrics.confusion import confusion_rows
from util import plotting
from util.config.data import Data
from util.config.schema import Config
from util.io import csv_text, write_text


def write_scores(
    folder: Path,
    classes: Sequence[str],
    confusion: Tensor,
    shares: Mapping[str, Tensor],
    distances: Mapping[str, Sequence[float | None]],
) -> None:
    """Write scores.csv, confusion.csv (in pixels) and confusion.png.

    Args:
        shares: scores `[C]` in [0, 1] by the title of their column, written in percent.
        distances: further columns, written as they are; empty for None.
    """
    percents = [[f"{100 * share:.4f}" for share in column] for column in shares.values()]
    pixels = confusion.sum(1).tolist()
    rows = zip(classes, pixels, *percents, *distances.values(), strict=True)
    figure = plotting.draw_confusion_matrix(confusion.numpy(), classes)
    save_picture(plotting.as_image(figure), folder / "confusion.png")
    write_text(folder / "confusion.csv", csv_text(confusion_rows(confusion, classes)))
    write_text(folder / "scores.csv", csv_text([["class", "pixels", *shares, *distances], *rows]))


def worst_images(scores: Scores, count: int) -> list[tuple[int, float]]:
    """Return index and mean IoU of the images with the lowest mean IoU, the lowest first; images
    without labelled pixels are left out."""
    assert scores.counts is not None
    mious = [image_miou(counts) for counts in scores.counts]
    order = sorted((miou, index) for index, miou in enumerate(mious) if miou < math.inf)
    return [(index, miou) for miou, index in order[:count]]


def image_miou(counts: Tensor) -> float:
    """Return the mean IoU in [0, 1] over the classes in mask or prediction of one image, from its
    `class_counts` `[3, C]`; infinite without labelled pixels."""
    hit, predicted, true = counts
    union = predicted + true - hit
    present = union > 0
    return (hit[present] / union[present]).mean().item() if present.any() else math.inf


def write_worst(
    folder: Path,
    count: int,
    scores: Scores,
    samples: Sequence[Sample],
    network: nn.Module,
    config: Config,
    device: torch.device,
) -> None:
    """Write pictures of the `worst_images` with their masks and predictions."""
    reader, predictor = Reader(config.data), Predictor(network, config, device)
    for rank, (index, miou) in enumerate(worst_images(scores, count), 1):
        sample = samples[index]
        pixels, mask_image = reader.image_and_mask(sample)
        mask = np.array(mask_image)
        if config.evaluation.mode == "center_crop":
            bands = center_crop(np.moveaxis(pixels, 2, 0), config.crop_size)
            pixels, mask = np.moveaxis(bands, 0, 2), center_crop(mask, config.crop_size)
        title = f"{sample.image}, mean IoU {100 * miou:.1f}"
        previews = rgb_previews(pixels, config.data)
        picture = comparison(previews, mask, predictor.mask(pixels), config.data, title)
        save_picture(picture, folder / f"{rank:03}_{Path(sample.image).stem}.jpg")


def comparison(
    previews: Sequence[Image.Image],
    target: np.ndarray,
    predicted: np.ndarray,
    data: Data,
    title: str,
) -> Image.Image:
    """Draw the image (all dates), mask and prediction side by side, with the shares of classes."""
    panels = [*previews, *(overlay(previews[-1], mask, data) for mask in (target, predicted))]
    by_mask = [class_shares(mask, data) for mask in (target, predicted)]
    colours = {name: colour for classes in by_mask for colour, name, _ in classes}
    true, found = ({name: percent(share) for _, name, share in classes} for classes in by_mask)
    legend = [
        (colour, f"{name} {true.get(name, '0')} / {found.get(name, '0')}")
        for name, colour in colours.items()
    ]
    image = "image" if len(previews) == 1 else "both dates"
    heading = f"{title}: {image}, ground truth, prediction; shares in ground truth / prediction:"
    return with_legend(side_by_side([panels]), [(None, heading), *legend])
