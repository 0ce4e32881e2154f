"""Checkpoints of a run: their content, its check, and the one that a run resumes from."""

from collections.abc import Collection
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, AliasChoices, ConfigDict, Field, JsonValue
from torch import Tensor

from engine.run_dir import RunDir
from model.checkpoint import load
from model.files import best_checkpoint, require_resumable
from util import distributed
from util.config.differences import SCORE_KEYS, differences, image_differences, with_defaults
from util.config.loading import parse
from util.config.types import Natural, Positive, PositiveFloat, Section
from util.errors import UserError
from util.log import logger
from util.starts import STARTS_FILE, last_start


def _scalar(value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.ndim or value.is_meta or value.is_complex():
        raise ValueError("expected a tensor of one number")
    return value


class Strict(Section):
    """Base class of a checkpoint's records: types are not converted."""

    model_config = ConfigDict(strict=True)


class Best(Strict):
    """Best score of a network, and its epoch."""

    score: float = Field(validation_alias=AliasChoices("score", "miou"))  # name in older versions
    epoch: Natural


class Sums(Strict):
    """Running means of an epoch, from `engine.progress.Means.state`."""

    sums: dict[str, Annotated[Any, AfterValidator(_scalar)]]
    finite: dict[str, Annotated[Any, AfterValidator(_scalar)]] = {}
    count: Natural


class LossScaleState(Strict):
    """Loss scale, from `LossScale.state`."""

    model_config = ConfigDict(extra="ignore")  # torch's own scaler had more keys

    scale: PositiveFloat
    tracker: Natural = Field(alias="_growth_tracker")


class Identity(Strict):
    """Identity of a split file, from `dataset.split_files.split_identity`."""

    images: Natural
    sha256: str


class Identities(Strict):
    """Identities of the split files of a run."""

    labeled: Identity
    unlabeled: Identity
    val: Identity


class RunState(Strict):
    """Content of a checkpoint, from `Trainer.state`."""

    method: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: LossScaleState
    epoch: Natural
    done: Natural
    means: Sums
    best: dict[str, Best]
    history: list[dict[str, JsonValue]]
    name: str
    config: dict[str, JsonValue]
    images: Identities | None = None
    """None in a checkpoint of an older version, as is the length of an epoch."""
    epoch_length: Positive | None = None
    nonfinite: Natural = 0
    """Non-finite steps in a row up to this checkpoint."""

    def compare(self, current: dict[str, Any], source: Path, force: bool) -> Collection[str]:
        """Compare config and split files with the state `current` of the run that resumes; return
        the changed keys.

        Raises `UserError` for differences; with `force`, logs them instead, drops best scores that
        are no longer comparable, and marks the records of their epochs. A finished run has no steps
        left for other settings, so `force` does not help.
        """
        changed = differences(with_defaults(self.config), current["config"])
        images = self.images or distributed.on_main(_images_at_last_start, source)
        if images:
            changed |= image_differences(images.model_dump(), current["images"])
        is_rescored = any(key.startswith(SCORE_KEYS) for key in changed)
        loses_best = bool(self.best) and is_rescored
        if changed and self.epoch >= current["config"]["epochs"]:
            raise UserError(
                f"{source}: the run is finished; nothing would be trained with other settings or "
                f"split files: {'; '.join(changed.values())}. Fix: pass --force and --set "
                f"epochs=N, N above {self.epoch} (finished epochs), or choose another --save-path"
            )
        if changed and not force:
            consequence = ", which discards the best scores (not comparable) and best.pth"
            raise UserError(
                f"{source}: the run was started with other settings or split files: "
                f"{'; '.join(changed.values())}. Fix: resume with the same settings, choose "
                f"another --save-path, or pass --force{consequence if loses_best else ''}"
            )
        if changed:
            logger.warning("%s: continues with changes: %s", source, "; ".join(changed.values()))
        if loses_best:
            names = ", ".join(best_checkpoint(Path(), name).name for name in self.best)
            logger.warning(
                "%s: best scores are discarded, as they are not comparable with scores from now "
                "on; the next validation replaces %s", source, names,
            )  # fmt: skip
            self.best.clear()
        if is_rescored:
            for record in self.history:
                record["superseded"] = True
        if images is None:
            logger.info("%s: records no split files (an older version); not compared", source)
        return changed

    def drop_best(self, source: Path, run_dir: RunDir) -> None:
        """Drop best scores whose checkpoints are not in the run directory; keep those of the
        checkpoint `source` itself."""
        earlier = [n for n, best in self.best.items() if self.done or best.epoch != self.epoch]
        found = distributed.on_main(_best_epochs, run_dir.path, earlier)
        for name in earlier:
            epoch = self.best[name].epoch
            if found.get(name) != epoch:
                del self.best[name]
                problem = f"is not of epoch {epoch}" if name in found else "does not exist"
                logger.warning(
                    "%s: its best score is not kept, as %s %s",
                    source, best_checkpoint(run_dir.path, name), problem,
                )  # fmt: skip


def _best_epochs(folder: Path, names: Collection[str]) -> dict[str, int | None]:
    """Return the epochs of the best checkpoints in a folder; None for an unreadable one."""
    epochs: dict[str, int | None] = {}
    for name in names:
        path = best_checkpoint(folder, name)
        if path.exists():
            epochs[name] = None
            with suppress(UserError):
                epochs[name] = _epoch(path)
    return epochs


def _images_at_last_start(source: Path) -> Identities | None:
    """Return the identities of the split files that the last start of a checkpoint's run recorded,
    if any."""
    images = last_start(source.parent).get("images")
    return parse(Identities, images, f"{source.parent}/{STARTS_FILE}") if images else None


def check_run(state: Any, name: str, path: Path) -> RunState:
    """Validate the content of a checkpoint.

    Raises `UserError` unless it is of a run of the method called `name`.
    """
    needed = {key for key, field in RunState.model_fields.items() if field.is_required()}
    if not isinstance(state, dict) or not needed <= state.keys():
        raise UserError(
            f"{path}: not a checkpoint of this project's training (weights only, or of another "
            "implementation). Fix: name a run's latest.pth, or start a run in another --save-path"
        )
    run: RunState = parse(RunState, state, str(path))
    if run.name != name:
        raise UserError(
            f"{path}: checkpoint of {run.name}, expected one of a {name} run. Fix: use the script "
            f"of {run.name}, or another --save-path"
        )
    return run


def state_to_resume(run_dir: RunDir, resume: str) -> tuple[Any, Path] | None:
    """Return content and path of the checkpoint to continue from, if there is one.

    A path, or `never`, applies to the first start only. When the run restarts by itself, it resumes
    from its own last checkpoint. Raises `UserError` when a new run would overwrite
    files, when the named checkpoint is missing, and when no checkpoint is readable.
    """
    checkpoints = [path for path in (run_dir.latest, run_dir.previous) if path.exists()]
    is_repeated_start = run_dir.was_started_by_this_command() and (
        resume != "never" or distributed.is_restart()
    )
    if checkpoints and (resume == "auto" or is_repeated_start):
        return _first_readable(run_dir, checkpoints)
    if resume in ("auto", "never"):
        _refuse_to_overwrite(run_dir)
        return None
    source = require_resumable(resume)
    _refuse_to_overwrite(run_dir, source)
    return load(source), source


def _first_readable(run_dir: RunDir, checkpoints: list[Path]) -> tuple[Any, Path]:
    for path, older in pairwise(checkpoints):
        try:
            return load(path), path
        except UserError as error:
            logger.warning("%s; continuing from the one before, %s", error, older)
            run_dir.damaged = True
    return load(checkpoints[-1]), checkpoints[-1]


def _epoch(path: Path) -> int:
    """Return the number of completed epochs of a checkpoint; 0 for a file of weights only."""
    state = load(path)
    epoch = state.get("epoch") if isinstance(state, dict) else None
    return epoch if isinstance(epoch, int) else 0


def _refuse_to_overwrite(run_dir: RunDir, source: Path | None = None) -> None:
    """Raise `UserError` where a run that begins here, from no checkpoint or from `source`, would
    overwrite files of another run or of the user."""
    latest = (run_dir.latest, run_dir.previous)  # the later one first
    bests = sorted(run_dir.path.glob("best*.pth"))
    others = [run_dir.metrics]
    if not run_dir.starts.exists():  # config.yaml is the user's
        others.append(run_dir.config)
    lost = [path for path in (*latest, *bests, *others) if path.is_file()]
    own = next((path for path in lost if source and path.resolve() == source.resolve()), None)
    if own:  # the same run continues: only later checkpoints would be lost
        lost = [path for path in lost[: lost.index(own)] if path in latest]
        if own in bests:  # several networks have best epochs of their own
            lost += [path for path in bests if path != own and _epoch(path) > _epoch(own)]
    if not lost:
        return
    fix = "move the files away, or choose another folder"
    if lost[0] in latest:
        fix = "pass --resume auto to continue that run, or choose another folder"
    elif lost[0] in bests:
        fix = f"pass --resume {lost[0]} to continue from it, or choose another folder"
    raise UserError(
        f"--save-path {run_dir.path}: a new run would overwrite "
        f"{', '.join(path.name for path in lost)}. Fix: {fix}"
    )
