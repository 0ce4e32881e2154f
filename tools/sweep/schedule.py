"""Run what a sweep still lacks, one run at a time on each device."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from dataset.protocols import how_to_get
from tools.results.runs import Run, best_epoch
from tools.sweep.spec import Planned
from util.config.differences import differences
from util.errors import UserError, duration
from util.interrupt import EXIT_CODE, Interrupted, stop_requests
from util.io import make_folder
from util.paths import find_path

POLL_SECONDS = 0.2
STOPPED = (EXIT_CODE, -signal.SIGTERM)
"""Exit codes of a run that was asked to stop; the second one before it was ready to save."""


class State(NamedTuple):
    """Progress of a run of a sweep."""

    planned: Planned
    run: Run | None
    """None before the run has started."""

    @property
    def is_done(self) -> bool:
        return self.run is not None and self.run.is_finished

    def __str__(self) -> str:
        if self.run is None:
            return "to do"
        return result(self.run) if self.is_done else f"unfinished, {self.run.progress}"


def state_of(planned: Planned) -> State:
    """Read the progress of a run.

    Raises `UserError` for a bad config, and for a folder that holds a run with another config.
    """
    config = planned.load()
    if not planned.has_started:
        return State(planned, None)
    run = Run(planned.folder)
    old, new = (c.model_dump(mode="json") for c in (run.config, config))
    if changed := "; ".join(differences(old, new).values()):
        raise UserError(
            f"{planned.folder}: holds a run with another config: {changed}; move it away, or "
            "choose another save_path"
        )
    return State(planned, run)


def check_split_files(states: Sequence[State]) -> None:
    """Raise `UserError` for the first split file that a run lacks."""
    for path in (p for s in states if not s.is_done for p in s.planned.split_files.values()):
        if not find_path(path).is_file():
            raise UserError(f"{path}: no such list{how_to_get(path)}")


def result(run: Run) -> str:
    """Describe the scores and the time of a finished run."""
    from inference.evaluation import score_title  # imports PyTorch

    parts, score = [], score_title(run.config)
    for network in run.networks:
        if curve := run.selected(network):
            best = best_epoch(curve)
            parts.append(
                f"{network} {score} {curve[max(curve)]:.1f}, best {curve[best]:.1f} (epoch {best})"
            )
    seconds = sum(epoch.seconds + epoch.validation_seconds for epoch in run.epochs)
    return f"done: {'; '.join(parts) or 'no score'}; {duration(seconds)}"


def seconds_left(states: Sequence[State]) -> tuple[float, list[Planned]]:
    """Return the seconds that one device needs for the rest, by epochs of the same kind of run, and
    the runs of a kind without epochs."""
    seconds: dict[str, list[float]] = {}
    for state in states:
        for epoch in state.run.epochs if state.run else []:
            taken = epoch.seconds + epoch.validation_seconds
            seconds.setdefault(state.planned.kind, []).append(taken)
    left, unknown = 0.0, []
    for planned, run in states:
        if planned.kind in seconds:
            done = run.epochs[-1].epoch if run and run.epochs else 0
            left += median(seconds[planned.kind]) * (planned.load().epochs - done)
        else:
            unknown.append(planned)
    return left, unknown


def run_all(
    states: Sequence[State], devices: Sequence[str], say: Callable[[Planned, object], None]
) -> list[Planned]:
    """Run what is not done; returns the runs that failed.

    The output of a run is appended to console.txt in its folder.  Raises `Interrupted` after a
    request to stop, when all runs have saved.

    Args:
        devices: auto, cpu, or the number of a GPU.
        say: prints a message about a run.
    """
    waiting, failed, free = [], [], list(devices)
    for state in states:
        if state.is_done:
            say(state.planned, state)
        else:
            waiting.append(state.planned)
    running: dict[subprocess.Popen[bytes], tuple[Planned, str]] = {}
    with stop_requests() as stop:
        told = False
        while running or (waiting and not stop.by):
            while free and waiting and not stop.by:
                planned, device = waiting.pop(0), free.pop(0)
                say(planned, f"started on {device}")
                running[_start(planned, device)] = planned, device
            if stop.by and not told:
                told = True
                for process in running:  # a terminal's Ctrl-C has reached them already
                    process.send_signal(signal.SIGTERM)
            time.sleep(POLL_SECONDS)
            for process in [process for process in running if process.poll() is not None]:
                planned, device = running.pop(process)
                free.append(device)
                say(planned, _ending(planned.folder, process.returncode))
                failed += [planned] if process.returncode not in (0, *STOPPED) else []
        if stop.by:
            raise Interrupted
    return failed


def _start(planned: Planned, device: str) -> subprocess.Popen[bytes]:
    kind = device if device in ("auto", "cpu") else "cuda"
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


def _ending(folder: Path, code: int) -> str:
    """Describe how a run ended: its scores, or its last line of output."""
    if code in STOPPED:
        return "stopped; the same command resumes it"
    if code:
        console = (folder / "console.txt").read_text(encoding="utf-8", errors="backslashreplace")
        *_, last = ["no output", *filter(str.strip, console.split("\n"))]
        return f"FAILED (exit code {code}): {last.strip()}"
    try:
        return result(Run(folder))
    except UserError as error:
        return f"FAILED: {error}"
