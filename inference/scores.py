"""Scores of a validation, as text and for JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from metrics.confusion import Intervals, class_counts, class_scores, iou_intervals
from util.config.schema import Config
from util.errors import counted
from util.plotting import MAX_READABLE_CLASSES
from util.tables import text_table

SHORT_TABLE_CLASSES = 5
"""Classes that a short table of scores shows."""


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


def score_title(config: Config) -> str:
    """Return the name of the score that chooses the best checkpoint."""
    select = config.evaluation.select
    return {"miou": "mIoU", "dice": "mean Dice"}.get(select, select.replace("iou:", "IoU of "))


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
