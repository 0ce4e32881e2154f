"""Run the unfinished runs of a sweep, one at a time on each device."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from dataset.folders import read_samples
from dataset.split_files import missing_split_file_error, split_identity
from tools.results.runs import Run, best_epoch
from tools.sweep.spec import PlannedRun
from util.config.data import Data
from util.config.differences import differences, image_differences
from util.config.schema import Config
from util.errors import UserError, counted, duration
from util.interrupt import EXIT_CODE, KILLED_BY_HAND, Interrupted, stop_requests
from util.io import make_folder
from util.paths import find_path

Identity = Callable[[str, str], dict[str, Any] | None]
POLL_SECONDS = 0.2
STOPPED = (EXIT_CODE, KILLED_BY_HAND, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
"""Exit codes of a run that was asked to stop: after it saved, and before it could save."""


class RunProgress(NamedTuple):
    """Progress of a run of a sweep."""

    planned: PlannedRun
    run: Run | None
    """None before the run has started."""
    label: str
    """Number and folder, printed before each message."""

    @property
    def is_done(self) -> bool:
        return self.run is not None and self.run.is_finished

    def epochs_left(self) -> int:
        done = self.run.epochs_done if self.run else 0
        return self.planned.load().epochs - done

    def say(self, message: object) -> None:
        print(f"{self.label}  {message}", flush=True)

    def __str__(self) -> str:
        if self.run is None:
            return "to do"
        return result(self.run) if self.is_done else f"unfinished, {self.run.progress}"


def states_of(runs: Sequence[PlannedRun]) -> list[RunProgress]:
    """Read the progress of all runs.

    Raises `UserError` for a bad config, and for a folder that holds a run with another config or
    other split files.
    """
    identity = cache(_identity)  # runs share split files
    width, digits = max(len(str(run.folder)) for run in runs), len(str(len(runs)))
    return [
        RunProgress(
            planned,
            _started(planned, identity),
            f"[{n:>{digits}}/{len(runs)}] {planned.folder!s:<{width}}",
        )
        for n, planned in enumerate(runs, start=1)
    ]


def _started(planned: PlannedRun, identity: Identity) -> Run | None:
    """Return the run in the folder; raises `UserError` for one with another config or other split
    files."""
    config = planned.load()
    if not planned.has_started:
        return None
    run = Run(planned.folder)
    old, new = (c.model_dump(mode="json") for c in (run.config, _resolved(config, run)))
    text = config.data.model_dump_json()
    recorded = {split: one for split, one in run.identities.items() if one.images}
    then = {split: one.model_dump() for split, one in recorded.items()}
    now = {split: found for split in then if (found := identity(text, split))}
    changes = differences(old, new) | image_differences(then, now)
    if changed := "; ".join(changes.values()):
        raise UserError(
            f"{planned.folder}: holds a run with another config: {changed}. Fix: move it away, or "
            "choose another save_path"
        )
    return run


def _identity(text: str, split: str) -> dict[str, Any] | None:
    """Return the identity of a split of the data section in a JSON text; None where it cannot be
    read, as a finished run does not need it."""
    data = Data.model_validate_json(text)
    if getattr(data, split, None) is None:
        return None
    try:
        samples = read_samples(getattr(data, split), data, masks=split != "unlabeled").samples
    except UserError:
        return None
    return split_identity(samples)


def _resolved(config: Config, run: Run) -> Config:
    """Return the config with the values that the start of a run puts in place of its rules.

    The precision depends on the device and the class weights on the masks: these are the run's.
    """
    from engine.optimizer import with_scaled_lr  # imports PyTorch

    if config.optimizer.scale_lr:
        config = with_scaled_lr(config)
    if config.precision == "auto":
        config = config.model_copy(update={"precision": run.config.precision})
    rule, weights = config.criterion.class_weights, run.config.criterion.class_weights
    recorded = run.starts[-1].class_weights  # None: by an older version
    if isinstance(rule, str) and weights and recorded in (rule, None):
        config = config.with_class_weights(weights)
    return config


def check_split_files(states: Sequence[RunProgress]) -> None:
    """Raise `UserError` for the first split file that a run lacks."""
    for path in (p for s in states if not s.is_done for p in s.planned.split_files.values()):
        if not find_path(path).is_file():
            raise missing_split_file_error(path)


def check_devices(devices: Sequence[str]) -> None:
    """Raise `UserError` for a GPU that this machine lacks, and for other names: their runs would
    all fail."""
    from util.distributed import gpu_count

    for device in devices:
        if not device.isdecimal() and device not in ("auto", "cpu"):
            raise UserError(f"--devices {device}: expected auto, cpu or numbers of GPUs")
        if device.isdecimal() and int(device) >= gpu_count():
            raise UserError(
                f"--devices {device}: found {counted(gpu_count(), 'GPU')}, numbered from 0"
            )


def result(run: Run) -> str:
    """Describe the scores and the time of a finished run."""
    from inference.scores import score_title  # imports PyTorch

    parts, score = [], score_title(run.config)
    for network in run.networks:
        if curve := run.selected(network):
            best = best_epoch(curve)
            parts.append(
                f"{network} {score} {curve[max(curve)]:.1f}, best {curve[best]:.1f} (epoch {best})"
            )
    return f"done: {'; '.join(parts) or 'no score'}; {duration(run.seconds)}"


def run_all(states: Sequence[RunProgress], devices: Sequence[str]) -> tuple[list[PlannedRun], bool]:
    """Run the unfinished runs; return those that failed, and whether one was stopped.

    The output of a run is appended to console.txt in its folder. Raises `Interrupted` after a
    request to stop the sweep, when all runs have saved. `devices`: auto, cpu, or numbers of GPUs.
    """
    failed, free, stopped = [], list(devices), False
    waiting = [state for state in states if not state.is_done]
    for state in states:
        if state.is_done:
            state.say(state)
    running: dict[subprocess.Popen[bytes], tuple[RunProgress, str]] = {}
    with stop_requests() as stop:
        asked_to_stop = False
        while running or (waiting and not stop.signal_name):
            while free and waiting and not stop.signal_name:
                state = waiting.pop(0)
                try:
                    process = _start(state.planned, free[0])
                except UserError as error:
                    state.say(f"FAILED: {error}")
                    failed.append(state.planned)
                    continue
                state.say(f"started on {free[0]}")
                running[process] = state, free.pop(0)
            if stop.signal_name and not asked_to_stop:
                asked_to_stop = True
                for process in running:  # a terminal's Ctrl-C has reached them already
                    process.send_signal(signal.SIGTERM)
            time.sleep(POLL_SECONDS)
            for process in [process for process in running if process.poll() is not None]:
                state, device = running.pop(process)
                free.append(device)
                text, has_failed = _ending(state.planned.folder, process.returncode)
                state.say(text)
                failed += [state.planned] if has_failed else []
                stopped |= process.returncode in STOPPED
        if stop.signal_name:
            raise Interrupted
    return failed, stopped


def _start(planned: PlannedRun, device: str) -> subprocess.Popen[bytes]:
    kind = device if device in ("auto", "cpu") else "cuda"
    if device.isdecimal() and (visible := os.environ.get("CUDA_VISIBLE_DEVICES")):
        device = visible.split(",")[int(device)]  # numbers count the visible GPUs, as in PyTorch
    gpu = {"CUDA_VISIBLE_DEVICES": device} if kind == "cuda" else {}
    command = [sys.executable, *planned.command, "--device", kind]
    make_folder(planned.folder)
    try:
        with (planned.folder / "console.txt").open("ab") as out:
            return subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, env=os.environ | gpu
            )
    except OSError as error:
        raise UserError(f"{planned.folder}: cannot be written ({error})") from None


def _ending(folder: Path, code: int) -> tuple[str, bool]:
    """Describe the end of a run by its scores or its last line of output; True for a failure."""
    if code in STOPPED:
        return "stopped; the same command resumes it", False
    if code:
        console = (folder / "console.txt").read_text(encoding="utf-8", errors="backslashreplace")
        *_, last = ["no output", *filter(str.strip, console.split("\n"))]
        return f"FAILED (exit code {code}): {last.strip()}", True
    try:
        return result(Run(folder)), False
    except UserError as error:
        return f"FAILED: {error}", True
