"""Lines of the files in a run directory: starts.jsonl and metrics.jsonl."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from util.config.loading import parse
from util.config.types import Section
from util.errors import UserError


class Record(Section):
    """A line of a file in a run directory; unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore")


class PseudoLabels(Record):
    """Quality of a network's pseudo-labels (see `metrics.calibration`) in percent, except the
    threshold; None for a share of no pixels."""

    threshold: float
    kept: float | None
    precision: float | None
    class_kept: list[float | None]
    class_precision: list[float | None]
    ece: float | None
    bin_pixels: list[float | None]
    bin_accuracy: list[float | None]


class Validation(Record):
    """Scores of one network, in percent."""

    mode: str
    miou: float
    miou_present: float | None = None
    """Mean IoU over the classes in the masks or predictions; None in runs of older versions."""
    accuracy: float
    iou: list[float]
    dice: list[float] | None = None
    miou_interval: tuple[float, float] | None = None
    iou_intervals: list[tuple[float, float]] | None = None
    pseudo_labels: PseudoLabels | None = None

    @property
    def absent(self) -> int:
        """Number of classes neither in the masks nor in the predictions, which count as IoU 0."""
        classes = len(self.iou)
        return classes - round(classes * self.miou / self.miou_present) if self.miou_present else 0

    def score(self, name: str, classes: Sequence[str]) -> float | None:
        """Return miou, accuracy, dice (mean over all classes but the first), or the IoU of a class;
        None for a score that the run does not have."""
        if name in ("miou", "accuracy"):
            return float(getattr(self, name))
        if name == "dice" and self.dice is not None:
            return sum(self.dice[1:]) / len(self.dice[1:])
        return self.iou[classes.index(name)] if name in classes else None


class Epoch(Record):
    """A line of metrics.jsonl."""

    epoch: int
    steps: int
    train: dict[str, float]
    seconds: float
    step_seconds: float | None = None
    validation_seconds: float = 0.0
    peak_memory: int | None = None
    scores: dict[str, Validation] = {}
    superseded: bool = False
    """The run was resumed with other settings of the evaluation, or other validation images."""


class SplitIdentity(Record):
    """Number of images and hash of a split file."""

    images: int
    sha256: str


class Start(Record):
    """A line of starts.jsonl: a start or resumption of the run."""

    command: list[str]
    first_step: int
    method: str | None = None
    images: dict[str, SplitIdentity] = {}
    folds: str | None = None
    """Digest of all folds of a cross-validation, one of which this run is."""
    class_weights: str | list[float] | None = None
    """`criterion.class_weights` at the start; the run's config has the numbers of a rule (auto)."""
    python: str = "unknown"
    torch: str = "unknown"
    device: str = "unknown"
    commit: str = "unknown"


def read_records(path: Path, kind: type[Record]) -> list[Any]:
    """Return the lines of a JSONL file; none for a missing file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from None
    records = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            tree = json.loads(line)
        except (ValueError, RecursionError):
            raise UserError(f"{path} line {number}: not JSON") from None
        records.append(parse(kind, tree, f"{path} line {number}"))
    return records
