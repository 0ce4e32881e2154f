"""Evaluation of a network: confusion matrix and scores over the images of all ranks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from dataset.loaders import ProcessInfo, data_workers
from dataset.samples import volume_of
from inference.predictor import Predictor, confidence, has_nan, nonfinite_outputs_error
from metrics.calibration import PseudoLabelScores
from metrics.confusion import Intervals, class_counts, class_scores, iou_intervals
from model.network import eval_mode
from util import distributed
from util.config.schema import Config, Evaluation
from util.config.types import IGNORE
from util.errors import UserError, counted
from util.plotting import MAX_READABLE_CLASSES
from util.tables import text_table

Array = TypeVar("Array", Tensor, np.ndarray)

SHORT_TABLE_CLASSES = 5
"""Classes that a short table of scores shows."""


class ScoreCollector(Protocol):
    """Collector of further scores during an evaluation."""

    def add(self, index: int, predicted: Tensor, target: Tensor) -> None:
        """Add an image: its index, predicted classes and mask `[H, W]`."""


@dataclass(frozen=True)
class Scores:
    """Scores of one validation."""

    confusion: Tensor
    """`[C, C]`, rows: truth, columns: prediction; pixels, int64, on the CPU."""
    dice: Tensor | None = None
    """`[C]`, mean over volumes, if the config defines volumes."""
    counts: Tensor | None = None
    """`[N, 3, C]`, `metrics.confusion.class_counts` of each image."""
    volume_counts: Tensor | None = None
    """`[V, 3, C]`, `class_counts` of each volume, if the config defines volumes."""

    @property
    def iou(self) -> Tensor:
        """`[C]` in [0, 1]; 0 for a class that is absent."""
        hit, found, true = class_counts(self.confusion)
        return hit / (found + true - hit).clamp(min=1)

    @property
    def by_class(self) -> dict[str, Tensor]:
        """Scores `[C]` in [0, 1], by the title of their column."""
        return {"IoU": self.iou} | ({} if self.dice is None else {"volume Dice": self.dice})

    @property
    def absent(self) -> Tensor:
        """`[C]`, bool: classes neither in the masks nor in the predictions."""
        return class_counts(self.confusion)[1:].sum(0) == 0

    @property
    def miou(self) -> float:
        """Mean IoU over **all** classes, in percent: the published number."""
        return 100 * self.iou.mean().item()

    @property
    def miou_present(self) -> float:
        """Mean IoU over the classes that occur, in percent."""
        present = self.iou[~self.absent]
        return 100 * present.mean().item() if len(present) else 0.0

    @property
    def mean_dice(self) -> float:
        """Mean Dice over volumes and then over the classes but the first, in percent."""
        return 100 * self.dice[1:].mean().item() if self.dice is not None else 0.0

    def selected(self, config: Config) -> float:
        """Return the score that `evaluation.select` names, in percent."""
        kind, _, name = config.evaluation.select.partition(":")
        if kind == "iou":
            return 100 * self.iou[config.data.classes.index(name)].item()
        return self.mean_dice if kind == "dice" else self.miou

    @cached_property
    def intervals(self) -> Intervals | None:
        """95 % bootstrap intervals of IoU over volumes, whose slices resemble each other; over
        images without volumes."""
        counts = self.counts if self.volume_counts is None else self.volume_counts
        return None if counts is None else iou_intervals(counts)

    @property
    def accuracy(self) -> float:
        """Share of the pixels with the right class, in percent."""
        return 100 * (self.confusion.diag().sum() / self.confusion.sum().clamp(min=1)).item()


def center_crop(x: Array, size: int) -> Array:
    """Return the central `size` square of `[..., H, W]`, smaller where the image is smaller."""
    h, w = x.shape[-2:]
    y, x0 = max(h - size, 0) // 2, max(w - size, 0) // 2
    return x[..., y : y + size, x0 : x0 + size]


def confusion_matrix(prediction: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Count pixels by `target` class (rows) and predicted class: `[C, C]`, int64; 255 in either is
    not counted.

    Neither waits for the device nor needs more memory under deterministic algorithms.
    """
    ignored = (target == IGNORE) | (prediction == IGNORE)
    pairs = torch.where(ignored, num_classes**2, target.long() * num_classes + prediction)
    counts = pairs.new_zeros(num_classes**2 + 1)
    counts.scatter_add_(0, pairs.flatten(), torch.ones_like(pairs).flatten())
    return counts[:-1].view(num_classes, num_classes)


def dice(confusions: Tensor) -> Tensor:
    """Return the Dice of each class `[C]`, averaged over volumes, from confusion matrices
    `[V, C, C]`; a class that a volume and its prediction lack counts 1."""
    hit = confusions.diagonal(dim1=1, dim2=2).double()
    total = confusions.sum(1) + confusions.sum(2)
    return torch.where(total > 0, 2 * hit / total.clamp(min=1), 1.0).mean(0).float()


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


def score_title(config: Config) -> str:
    """Return the name of the score that chooses the best checkpoint."""
    select = config.evaluation.select
    return {"miou": "mIoU", "dice": "mean Dice"}.get(select, select.replace("iou:", "IoU of "))


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


def score_record(scores: Scores) -> dict[str, Any]:
    """Return scores in percent as plain numbers, for JSON."""
    numbers = {
        "miou": scores.miou,
        "miou_present": scores.miou_present,
        "accuracy": scores.accuracy,
        "iou": [100 * iou for iou in scores.iou.tolist()],
        "f1": [100 * f1 for f1 in class_scores(scores.confusion)["F1"].tolist()],
    }
    if scores.dice is not None:
        numbers["dice"] = [100 * d for d in scores.dice.tolist()]
        numbers["mean_dice"] = scores.mean_dice
    if intervals := scores.intervals:
        numbers["miou_interval"] = list(intervals.miou)
        numbers["iou_intervals"] = [list(interval) for interval in intervals.iou]
    return numbers


def score_table(
    scores: Scores,
    classes: list[str],
    more: Mapping[str, Tensor] | None = None,
    is_short: bool = False,
) -> str:
    """Return IoU, Dice of volumes and `more` named scores `[C]` by class, mIoU and pixel accuracy
    as text; with `more`, also a 95 % interval of each IoU.

    `is_short`: of more than `MAX_READABLE_CLASSES`, show the present classes with the lowest IoU.
    """
    columns = scores.by_class | dict(more or {})
    intervals = scores.intervals
    class_intervals = intervals.iou if intervals and more is not None else []
    heads = ["95 % interval"] if class_intervals else []
    rows = [["", *columns, *heads]] if len(columns) > 1 else []
    shown: Sequence[int] = range(len(classes))
    if is_short and len(classes) > MAX_READABLE_CLASSES:
        present = (~scores.absent).nonzero().flatten()
        shown = present[scores.iou[present].argsort(stable=True)[:SHORT_TABLE_CLASSES]].tolist()
    for index in shown:
        cells = [f"{100 * values[index]:6.2f}" for values in columns.values()]
        if class_intervals:
            cells.append("{:.1f} to {:.1f}".format(*class_intervals[index]))
        rows.append([classes[index], *cells, "(absent)" if scores.absent[index] else ""])
    if hidden := len(classes) - len(shown):
        rows.append(["...", *[""] * len(columns), f"{hidden} more in metrics.jsonl"])
    rows.append(["mIoU", f"{scores.miou:.2f}"])
    if scores.absent.any():
        rows.append(["mIoU of classes present", f"{scores.miou_present:.2f}"])
    rows.append(["pixel accuracy", f"{scores.accuracy:.2f}"])
    if scores.dice is not None:
        rows.append(["mean Dice (without class 0)", "", f"{scores.mean_dice:.2f}"])
    text = text_table(rows, "<>")
    if intervals is None:
        return text
    units = counted(intervals.units, "image" if scores.dice is None else "volume")
    return f"{text}\nmIoU, 95 % interval: {intervals} ({units})"
