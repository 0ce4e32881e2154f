"""Read run directories: config, starts, epochs with their scores."""

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from dataset.cross_validation import fold_folder, split_file
from tools.results.records import Epoch, PseudoLabels, Start, Validation, read_records
from util.config.differences import flat_settings
from util.config.loading import load_config
from util.config.schema import Config
from util.errors import UserError
from util.paths import nearest_hint
from util.starts import STARTS_FILE

PARTS_OF_RUN = ("pictures", "tensorboard", "wandb")
"""Folders of a run that hold no runs, but maybe thousands of files."""


class Run:
    """A run directory; raises `UserError` for a missing or invalid file."""

    def __init__(self, path: Path):
        if not (path / STARTS_FILE).is_file():
            raise UserError(
                f"{path}: no run directory (no {STARTS_FILE} in it). Fix: name the --save-path of "
                f"a training{nearest_hint(path)}"
            )
        self.path = path
        self.config: Config = load_config(path / "config.yaml")
        self.starts: list[Start] = read_records(path / STARTS_FILE, Start)
        self.epochs: list[Epoch] = read_records(path / "metrics.jsonl", Epoch)
        if not self.starts:
            raise UserError(
                f"{path / STARTS_FILE}: is empty; expected a line for each start of the run"
            )
        self.identities = self.starts[-1].images
        """Identities of the labeled, unlabeled and val images; empty where not recorded."""
        self.labels = self.count("labeled")
        """Number of labelled images."""
        self.method = self.starts[-1].method or Path(self.starts[-1].command[0]).stem
        """The method's class, or its script where the class was not recorded."""
        self.dataset = self.config.data.name
        self.fold = fold_folder(self.config.data)
        """The folder of a fold's split files, as `tools.splits make --folds` writes them."""
        self.root = self.config.data.root.name
        """Name of the folder of the data, which may be elsewhere on another machine."""
        model = self.config.model
        self.backbone = model.network if model.network == "unet" else model.backbone
        """The backbone's name; unet for a U-Net, which has its own encoder."""
        self.network = " ".join(dict.fromkeys([model.network, self.backbone]))
        self.networks = list(dict.fromkeys(name for epoch in self.epochs for name in epoch.scores))
        """Names of the validated networks: model, and model_ema where there is a teacher."""
        self.epochs_done = self.epochs[-1].epoch if self.epochs else 0
        self.steps_done = self.epochs[-1].steps if self.epochs else 0
        self.seconds = sum(epoch.seconds + epoch.validation_seconds for epoch in self.epochs)
        self.step_seconds = [e.step_seconds for e in self.epochs if e.step_seconds is not None]
        """Mean of each epoch, where recorded."""
        self.peak_memory = max((e.peak_memory for e in self.epochs if e.peak_memory), default=None)
        """Bytes, if recorded."""

    def count(self, split: str) -> int | None:
        """Return the number of labeled, unlabeled or val images, if recorded."""
        return self.identities[split].images if split in self.identities else None

    @property
    def partition(self) -> str:
        """The folder of the labelled split file, or of all folds; the number of labels where that
        folder has the dataset's name, or where there is no single split file."""
        path = split_file(self.config.data, "labeled")
        if path is None:
            return str(self.labels or "own")
        if self.fold is not None:  # whose numbers of labels may differ
            return self.fold.parent.name
        name = path.parent.name if path.stem == "labeled" else path.stem
        return str(self.labels or name) if name in (self.dataset, self.root) else name

    @property
    def images(self) -> dict[str, str]:
        """Hash or path of the images by split (labeled, val, unlabeled); "" for unlabelled images
        that the method does not use.

        The runs of all folds of one draw have the same texts: `labeled` is the draw, `val` is "".
        """
        texts = {split: self._hash_or_path(split) for split in ("labeled", "val", "unlabeled")}
        if self.fold is None:
            return texts
        path = split_file(self.config.data, "unlabeled")
        if texts["unlabeled"] and path is not None and self.fold.name in str(path):
            below = path.relative_to(self.fold.parent) if self.fold in path.parents else path
            texts["unlabeled"] = str(below).replace(self.fold.name, "fold_*")
        return texts | {"labeled": self.starts[-1].folds or str(self.fold.parent), "val": ""}

    def _hash_or_path(self, split: str) -> str:
        """Return the hash of a split file, or its path where the hash was not recorded."""
        if split not in self.identities:
            return str(getattr(self.config.data, split) or "")
        identity = self.identities[split]
        return identity.sha256[:12] if identity.images else ""

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Settings by dotted key, without those that may differ between runs of one group."""
        settings = flat_settings(self.config.model_dump(mode="json"))
        if isinstance(rule := self.starts[-1].class_weights, str):
            settings["criterion.class_weights"] = rule
        del settings["seed"], settings["data.name"]  # which have columns of their own
        if self.method == "SupOnly":  # uses neither
            del settings["conf_thresh"], settings["cutmix_partner"]
        return settings

    @property
    def is_finished(self) -> bool:
        return self.epochs_done >= self.config.epochs

    @property
    def forced(self) -> str:
        """Remark on a run that was resumed with `--force`; "" for any other."""
        if not any(start.first_step and "--force" in start.command for start in self.starts):
            return ""
        return "resumed with --force, so its config may have changed midway"

    @property
    def progress(self) -> str:
        return f"epoch {self.epochs_done} of {self.config.epochs}"

    def validations(self, network: str) -> dict[int, Validation]:
        """Return a network's scores by epoch, from comparable validations only: in the config's
        mode (not the cheap `center_crop`), with its settings and validation images."""
        mode = self.config.evaluation.mode
        return {
            epoch.epoch: epoch.scores[network]
            for epoch in self.epochs
            if network in epoch.scores
            and epoch.scores[network].mode == mode
            and not epoch.superseded
        }

    def curve(self, network: str, score: str) -> dict[int, float]:
        """Return a score of a network by epoch; empty where the run does not have the score."""
        scores = {
            epoch: validation.score(score, self.config.data.classes)
            for epoch, validation in self.validations(network).items()
        }
        return {epoch: value for epoch, value in scores.items() if value is not None}

    def selected(self, network: str) -> dict[int, float]:
        """Return the `curve` of the score that chooses the best checkpoint, `evaluation.select`."""
        return self.curve(network, self.config.evaluation.select.removeprefix("iou:"))

    def pseudo_labels(self, network: str) -> dict[int, PseudoLabels]:
        """Return the quality of a network's pseudo-labels by epoch; empty where not measured."""
        validations = self.validations(network).items()
        return {epoch: v.pseudo_labels for epoch, v in validations if v.pseudo_labels}


def best_epoch(curve: Mapping[int, float]) -> int:
    """Return the (first) epoch of a curve's highest score."""
    return max(curve, key=lambda epoch: (curve[epoch], -epoch))


def run_folders(places: Iterable[str]) -> tuple[list[Path], list[str]]:
    """Return all run directories in or below folders and patterns, also through links, once each,
    and a remark on each folder that cannot be read.

    Raises `UserError` for a place without runs.
    """
    folders: dict[Path, Path] = {}
    unread: dict[str, None] = {}

    def add_unread(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            unread[f"not read: {error.filename}: {error.strerror}"] = None

    for place in places:
        paths = [Path(p) for p in sorted(glob.glob(place, recursive=True))] or [Path(place)]
        runs = [run for path in paths for run in _runs_below(path, add_unread)]
        runs.sort(key=lambda run: (run.resolve() != run.absolute(), run))  # links last
        if not runs:
            hint = nearest_hint(Path(place))
            reasons = "; ".join([f"no {STARTS_FILE} in it or below", *unread])
            raise UserError(f"{place}: no run directory ({reasons}){hint}")
        for run in runs:
            folders.setdefault(run.resolve(), run)
    return list(folders.values()), list(unread)


def _runs_below(path: Path, onerror: Callable[[OSError], None]) -> Iterator[Path]:
    """Yield the run directories in a folder, also through links, each folder once."""
    seen: set[str] = set()
    for parent, folders, names in os.walk(path, onerror=onerror, followlinks=True):
        folders.sort(key=lambda name: (os.path.islink(os.path.join(parent, name)), name))
        if (real := os.path.realpath(parent)) in seen:
            folders.clear()
            continue
        seen.add(real)
        if STARTS_FILE in names:
            folders[:] = [name for name in folders if name not in PARTS_OF_RUN]
            yield Path(parent)


def find_runs(places: Iterable[str]) -> tuple[list[Run], list[str]]:
    """Return the readable runs of `run_folders`, and a remark on each of the others."""
    runs = []
    folders, faults = run_folders(places)
    for folder in folders:
        try:
            runs.append(Run(folder))
        except UserError as error:
            faults.append(f"not read: {error}")
    return runs, faults
