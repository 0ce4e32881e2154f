"""Evaluation of a network: confusion matrix and scores over the images of all ranks."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from dataset.loaders import ProcessInfo, data_workers
from dataset.samples import volume_of
from inference.predictor import Predictor, confidence, has_nan, nonfinite_outputs_error
from inference.scores import Scores
from metrics.calibration import PseudoLabelScores
from metrics.confusion import class_counts, confusion_matrix, dice
from model.network import eval_mode
from util import distributed
from util.config.schema import Config, Evaluation
from util.errors import UserError, counted

Array = TypeVar("Array", Tensor, np.ndarray)


class ScoreCollector(Protocol):
    """Collector of further scores during an evaluation."""

    def add(self, index: int, predicted: Tensor, target: Tensor) -> None:
        """Add an image: its index, predicted classes and mask `[H, W]`."""


def center_crop(x: Array, size: int) -> Array:
    """Return the central `size` square of `[..., H, W]`, smaller where the image is smaller."""
    h, w = x.shape[-2:]
    y, x0 = max(h - size, 0) // 2, max(w - size, 0) // 2
    return x[..., y : y + size, x0 : x0 + size]


def volume_indices(images: list[str], pattern: str | None) -> list[int]:
    """Return the number of each image's volume, by the first group of `pattern`; 0 without one.

    Raises `UserError` for an image without volume.
    """
    if pattern is None:
        return [0] * len(images)
    volumes = [volume_of(image, pattern) for image in images]
    for image, volume in zip(images, volumes, strict=True):
        if not volume:
            raise UserError(
                f"evaluation.volume_pattern: '{pattern}' names no volume of {image}; expected its "
                "first group to match in the path of every scored image"
            )
    numbers = {volume: number for number, volume in enumerate(dict.fromkeys(volumes))}
    return [numbers[volume] for volume in volumes]


class PixelCounts:
    """Counts of pixels by image and by volume, over the images of this rank; a `ScoreCollector`.

    `volumes`: number of each image's volume, by index.
    """

    def __init__(self, volumes: Sequence[int], num_classes: int, device: torch.device):
        self.volumes = volumes
        c = num_classes
        shape = (max(volumes) + 1, c, c)
        self.confusions = torch.zeros(shape, dtype=torch.int64, device=device)
        """`[V, C, C]`, confusion matrix of each volume."""
        self.images = torch.zeros(len(volumes), 3, c, dtype=torch.int64, device=device)
        """`[N, 3, C]`, `class_counts` of each image."""
        self.failed = self.confusions.new_zeros(1)
        """Number of images whose probabilities are not finite."""

    def add(self, index: int, predicted: Tensor, target: Tensor) -> None:
        confusion = confusion_matrix(predicted, target, self.confusions.shape[1])
        self.confusions[self.volumes[index]] += confusion
        self.images[index] = class_counts(confusion)

    def reduce(self, config: Config) -> Scores:
        """Return the scores over all ranks; raises `UserError` where outputs are not finite."""
        # One transfer, so that the device is waited for once.
        parts = [self.confusions, self.images, self.failed]
        flat = torch.cat([part.flatten() for part in parts])
        sums = distributed.all_reduce(flat).cpu().split([part.numel() for part in parts])
        if failed := int(sums[2]):
            source = f"{failed} of {counted(len(self.volumes), 'image')}"
            raise nonfinite_outputs_error(source, config.precision)
        confusions, images = sums[0].view(parts[0].shape), sums[1].view(parts[1].shape)
        if config.evaluation.volume_pattern is None:
            return Scores(confusions.sum(0), counts=images)
        return Scores(confusions.sum(0), dice(confusions), images, class_counts(confusions))


@torch.no_grad()
def evaluate(
    network: nn.Module,
    batches: Iterable[dict[str, Any]],
    config: Config,
    *,
    mode: str,
    device: torch.device,
    volumes: list[int],
    collectors: Sequence[ScoreCollector] = (),
    pseudo_labels: PseudoLabelScores | None = None,
) -> Scores:
    """Return the scores of a network over the images of all ranks; its modes are restored.

    Raises `UserError`, on all ranks alike, where its outputs are not finite.

    Args:
        batches: one image each: image `[1, C, H, W]`, mask uint8 `[1, H, W]`, index `[1]`.
        volumes: number of each image's volume, by index.
        collectors: collect further scores from the predictions of this rank.
        pseudo_labels: collects the quality of pseudo-labels.
    """
    predictor = Predictor(network, config, device, mode)
    counts = PixelCounts(volumes, config.num_classes, device)
    all_collectors: Sequence[ScoreCollector] = (counts, *collectors)
    with eval_mode(network):
        for batch in batches:
            image = batch["image"].to(device, non_blocking=True)
            target = batch["mask"].to(device, non_blocking=True)
            if mode == "center_crop":
                image, target = (center_crop(x, config.crop_size) for x in (image, target))
            probabilities = predictor.predict_batch(image)
            counts.failed += has_nan(probabilities)
            predicted = probabilities.argmax(1)[0]
            for collector in all_collectors:
                collector.add(int(batch["index"]), predicted, target[0])
            if pseudo_labels is not None:
                pseudo_labels.add(predicted, confidence(probabilities[0]), target[0])
    return counts.reduce(config)


def loader_process(config: Config, device: torch.device) -> ProcessInfo:
    """Describe this process to its loaders."""
    workers = data_workers(config, distributed.processes_here())
    on_gpu = device.type == "cuda"
    return ProcessInfo(distributed.rank(), distributed.world_size(), workers, cuda=on_gpu)


def with_bar(batches: Iterable[dict[str, Any]], title: str) -> Iterable[dict[str, Any]]:
    """Show a bar over batches, in a terminal and from one process only."""
    hidden = None if distributed.is_main() else True
    return tqdm(batches, title, leave=False, dynamic_ncols=True, disable=hidden)


def describe_prediction(evaluation: Evaluation) -> str:
    """Describe the prediction mode and the views of test-time augmentation."""
    scales = f"scales {', '.join(f'{scale:g}' for scale in evaluation.scales)}"
    parts: list[str] = [evaluation.mode]
    if evaluation.flip:
        parts.append("mirrored too")
    if evaluation.scales != (1.0,):
        parts.append(scales)
    return ", ".join(parts)
