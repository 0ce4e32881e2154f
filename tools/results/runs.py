"""Read run directories: config, starts, epochs with their scores."""

import glob
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from dataset.cross_validation import fold_folder, split_file
from util.config.differences import RESUMABLE_KEYS
from util.config.loading import load_config, parse
from util.config.schema import Config
from util.config.types import Section
from util.errors import UserError
from util.paths import nearest_hint

STARTS_FILE = "starts.jsonl"
"""File that every run directory holds."""
NOT_SETTINGS = {"seed", "data.name", "data.labeled", "data.unlabeled", "data.val"}
"""Keys that are not compared as settings: those with a column of their own, and split files."""
SCORES = ("miou", "accuracy", "dice")


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
    bin_confidence: list[float | None]
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


class SplitDigest(Record):
    """Number of images and hash of a split file."""

    images: int
    sha256: str


class Start(Record):
    """A line of starts.jsonl: a start or resumption of the run."""

    command: list[str]
    first_step: int
    method: str | None = None
    images: dict[str, SplitDigest] = {}
    folds: str | None = None
    """Digest of all folds of a cross-validation, one of which this run is."""
    class_weights: str | list[float] | None = None
    """As in the config of the start; the run's config holds the numbers of a rule such as auto."""
    python: str = "unknown"
    torch: str = "unknown"
    device: str = "unknown"
    commit: str = "unknown"


class Run:
    """A run directory; raises `UserError` for a missing or invalid file."""

    def __init__(self, path: Path):
        if not (path / STARTS_FILE).is_file():
            raise UserError(
                f"{path}: no run directory (no {STARTS_FILE} in it){nearest_hint(path)}; name the "
                "--save-path of a training"
            )
        self.path = path
        self.config: Config = load_config(path / "config.yaml")
        self.starts: list[Start] = _read_lines(path / STARTS_FILE, Start)
        self.epochs: list[Epoch] = _read_lines(path / "metrics.jsonl", Epoch)
        if not self.starts:
            raise UserError(
                f"{path / STARTS_FILE}: is empty; expected a line for each start of the run"
            )
        self.digests = self.starts[-1].images
        """Of the labeled, unlabeled and val images; empty where not recorded."""
        self.labels = self.count("labeled")
        """Number of labelled images."""
        self.method = self.starts[-1].method or Path(self.starts[-1].command[0]).stem
        """The method's class, or its script where the class was not recorded."""
        model = self.config.model
        self.backbone = model.network if model.network == "unet" else model.backbone
        """The backbone's name; unet for a U-Net, which has its own encoder."""
        self.network = " ".join(dict.fromkeys([model.network, self.backbone]))
        self.networks = list(dict.fromkeys(name for epoch in self.epochs for name in epoch.scores))
        """Names of the validated networks: model, and model_ema where there is a teacher."""

    def count(self, kind: str) -> int | None:
        """Return the number of labeled, unlabeled or val images, if recorded."""
        return self.digests[kind].images if kind in self.digests else None

    @property
    def fold(self) -> Path | None:
        """The folder of a fold's split files, as `tools.splits make --folds` writes them."""
        return fold_folder(self.config.data)

    @property
    def root(self) -> str:
        """Name of the folder of the data, which may be elsewhere on another machine."""
        return self.config.data.root.name

    @property
    def partition(self) -> str:
        """The folder of the labelled split file, or of all folds; the number of labels where that
        folder has the dataset's name, or where there is no single split file."""
        data = self.config.data
        path = split_file(data, "labeled")
        if path is None:
            return str(self.labels or "own")
        if self.fold is not None:  # whose numbers of labels may differ
            return self.fold.parent.name
        name = path.parent.name if path.stem == "labeled" else path.stem
        return str(self.labels or name) if name in (data.name, data.root.name) else name

    @property
    def identity(self) -> dict[str, str]:
        """Hash or path of the images by kind (labeled, val, unlabeled); "" for unlabelled images
        that the method does not use. The runs of all folds of one draw have the same texts."""
        fold = self.fold
        texts = {kind: self._hash_or_path(kind) for kind in ("labeled", "val", "unlabeled")}
        if fold is None:
            return texts
        path = split_file(self.config.data, "unlabeled")
        if texts["unlabeled"] and path is not None and fold.name in str(path):
            below = path.relative_to(fold.parent) if fold in path.parents else path
            texts["unlabeled"] = str(below).replace(fold.name, "fold_*")  # each fold has its own
        return {"folds": self.starts[-1].folds or str(fold.parent), "unlabeled": texts["unlabeled"]}

    def _hash_or_path(self, kind: str) -> str:
        """Return the hash of a split file, or its path where the hash was not recorded."""
        if kind not in self.digests:
            return str(getattr(self.config.data, kind) or "")
        digest = self.digests[kind]
        return digest.sha256[:12] if digest.images else ""

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Settings by dotted key, without those that may differ between runs of one group."""
        settings = _flatten(self.config.model_dump(mode="json"))
        if isinstance(rule := self.starts[-1].class_weights, str):
            settings["criterion.class_weights"] = rule
        return settings

    @property
    def is_finished(self) -> bool:
        return bool(self.epochs) and self.epochs[-1].epoch >= self.config.epochs

    @property
    def forced(self) -> str:
        """Remark on a run that was resumed with `--force`; "" for any other."""
        if not any(start.first_step and "--force" in start.command for start in self.starts):
            return ""
        return "resumed with --force, so its config may have changed midway"

    @property
    def progress(self) -> str:
        done = self.epochs[-1].epoch if self.epochs else 0
        return f"epoch {done} of {self.config.epochs}"

    def curve(self, network: str, score: str) -> dict[int, float]:
        """Return a network's score by epoch, from comparable validations only: in the config's mode
        (not the cheap `center_crop`), with its settings and validation images."""
        return {
            epoch.epoch: value_of(epoch.scores[network], score, self.config.data.classes)
            for epoch in self.epochs
            if network in epoch.scores
            and epoch.scores[network].mode == self.config.evaluation.mode
            and not epoch.superseded
        }

    def scores(self, network: str, epoch: int) -> Validation:
        """Return the scores of a network after an epoch."""
        return next(e.scores[network] for e in reversed(self.epochs) if e.epoch == epoch)

    def class_scores(self, network: str, score: str, epoch: int) -> list[float]:
        """Return the IoU of each class after an epoch; the Dice where `score` is dice."""
        scores = self.scores(network, epoch)
        return scores.dice if score == "dice" and scores.dice else scores.iou

    def pseudo_labels(self) -> tuple[str, dict[int, PseudoLabels]]:
        """Return the name of the network that makes pseudo-labels and their quality by epoch, from
        validations in the config's mode; empty where it was not measured."""
        quality: dict[int, PseudoLabels] = {}
        labeler = ""
        for epoch in (epoch for epoch in self.epochs if not epoch.superseded):
            for network, scores in epoch.scores.items():
                if scores.pseudo_labels and scores.mode == self.config.evaluation.mode:
                    labeler = network
                    quality[epoch.epoch] = scores.pseudo_labels
        return labeler, quality

    def selected(self, network: str) -> dict[int, float]:
        """Return the `curve` of the score that chooses the best checkpoint, `evaluation.select`."""
        return self.curve(network, self.config.evaluation.select.removeprefix("iou:"))


def best_epoch(curve: Mapping[int, float]) -> int:
    """Return the (first) epoch of a curve's highest score."""
    return max(curve, key=lambda epoch: (curve[epoch], -epoch))


def value_of(scores: Validation, score: str, classes: Sequence[str]) -> float:
    """Return miou, accuracy, dice (mean over all classes but the first), or the IoU of a class."""
    if score in ("miou", "accuracy"):
        return float(getattr(scores, score))
    if score == "dice" and scores.dice is not None:
        return sum(scores.dice[1:]) / len(scores.dice[1:])
    if score in classes:
        return scores.iou[classes.index(score)]
    raise UserError(
        f"--score {score}: not in these runs; expected {', '.join(SCORES)} (dice only of runs "
        f"with evaluation.volume_pattern) or a class: {', '.join(classes)}"
    )


def run_folders(places: Iterable[str]) -> list[Path]:
    """Return all run directories in or below folders and patterns, also through links, once each.

    Raises `UserError` for a place without runs.
    """
    folders: dict[Path, Path] = {}
    for place in places:
        paths = [Path(p) for p in sorted(glob.glob(place, recursive=True))] or [Path(place)]
        runs = [run for path in paths for run in _runs_below(path)]
        runs.sort(key=lambda run: (run.resolve() != run.absolute(), run))  # links last
        if not runs:
            hint = nearest_hint(Path(place))
            raise UserError(f"{place}: no run directory (no {STARTS_FILE} in it or below){hint}")
        for run in runs:
            folders.setdefault(run.resolve(), run)
    return list(folders.values())


def _runs_below(path: Path) -> Iterator[Path]:
    """Yield the run directories in a folder, also through links, each folder once."""
    seen: set[str] = set()
    for parent, folders, names in os.walk(path, followlinks=True):
        folders.sort(key=lambda name: (os.path.islink(os.path.join(parent, name)), name))
        if (real := os.path.realpath(parent)) in seen:
            folders.clear()
            continue
        seen.add(real)
        if STARTS_FILE in names:
            yield Path(parent)


def find_runs(places: Iterable[str]) -> tuple[list[Run], list[str]]:
    """Return the readable runs of `run_folders`, and a remark on each of the others."""
    runs, faults = [], []
    for folder in run_folders(places):
        try:
            runs.append(Run(folder))
        except UserError as error:
            faults.append(f"not read: {error}")
    return runs, faults


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        key = prefix + name
        if key in RESUMABLE_KEYS | NOT_SETTINGS or name == "root":
            continue
        if isinstance(value, dict) and value:
            flat |= _flatten(value, f"{key}.")
        else:
            flat[key] = value
    return flat


def _read_lines(path: Path, kind: type[Record]) -> list[Any]:
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
