"""Running a sweep: what is not done yet, one after the other or on several devices."""

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
from tools.results.runs import MARK, Run, best_epoch
from tools.sweep.spec import Planned
from util.config.loading import differences
from util.errors import UserError, duration
from util.interrupt import EXIT_CODE, Interrupted, stop_requests
from util.paths import find

POLL_SECONDS = 0.2
STOPPED = (EXIT_CODE, -signal.SIGTERM)
"""How a run ends that was asked to stop; the latter before it had begun."""


class State(NamedTuple):
    """How far a run of a sweep is."""

    planned: Planned
    run: Run | None
    """What is in its folder, if anything is."""

    @property
    def is_done(self) -> bool:
        return self.run is not None and self.run.is_finished

    def __str__(self) -> str:
        if self.run is None:
            return "to do"
        return result(self.run) if self.is_done else f"unfinished, {self.run.progress}"


def state_of(planned: Planned) -> State:
    """Raises `UserError` for a bad config, and where the folder holds a run with another one."""
    config = planned.load()
    if not (planned.folder / MARK).exists():
        return State(planned, None)
    run = Run(planned.folder)
    old, new = (c.model_dump(mode="json") for c in (run.config, config))
    if changed := "; ".join(differences(old, new).values()):
        raise UserError(
            f"{planned.folder}: holds a run with another config: {changed}; move it away, or "
            "choose another save_path"
        )
    return State(planned, run)


def check_lists(states: Sequence[State]) -> None:
    """Raise `UserError` for the first list that a run lacks."""
    for path in (p for s in states if not s.is_done for p in s.planned.list_files.values()):
        if not find(path).is_file():
            raise UserError(f"{path}: no such list{how_to_get(path)}")


def result(run: Run) -> str:
    """A finished run in a few words."""
    from inference.evaluation import score_title  # which needs PyTorch

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
    """Return the seconds that one device needs for what is not done, by the epochs of runs of the
    same kind, and the runs of a kind without epochs."""
    seconds: dict[str, list[float]] = {}
    for state in states:
        for epoch in state.run.epochs if state.run else []:
            taken = epoch.seconds + epoch.validation_seconds
            seconds.setdefault(state.planned.kind, []).append(taken)
    left, unknown = 0.0, []
    for state in states:
        if state.planned.kind in seconds:
            total = state.planned.load().epochs
            done = state.run.epochs[-1].epoch if state.run and state.run.epochs else 0
            left += median(seconds[state.planned.kind]) * (total - done)
        else:
            unknown.append(state.planned)
    return left, unknown


class Started(NamedTuple):
    place: int
    """Its number in the sweep, from 1."""
    planned: Planned
    process: subprocess.Popen[bytes]


def run_all(
    todo: Sequence[tuple[int, Planned]], devices: Sequence[str], say: Callable[[int, str], None]
) -> list[Planned]:
    """Run what is to do by the ordinary command, one run a device; returns those that failed.

    `devices`: auto, cpu, or the number of a GPU.  What a run prints is added to console.txt in its
    folder.  Raises `Interrupted` when it is asked to stop, after all runs have saved.
    """
    waiting, failed = list(todo), []
    running: dict[int, Started] = {}
    with stop_requests() as stop:
        told = False
        while running or (waiting and not stop.by):
            for slot in range(len(devices)):
                if slot not in running and waiting and not stop.by:
                    place, planned = waiting.pop(0)
                    say(place, f"started on {devices[slot]}")
                    running[slot] = Started(place, planned, _start(planned, devices[slot]))
            if stop.by and not told:
                told = True
                for started in running.values():  # a terminal's Ctrl-C has reached them already
                    started.process.send_signal(signal.SIGTERM)
            time.sleep(POLL_SECONDS)
            for slot, started in list(running.items()):
                if (code := started.process.poll()) is not None:
                    del running[slot]
                    say(started.place, _ending(started, code))
                    failed += [started.planned] if code not in (0, *STOPPED) else []
        if stop.by:
            raise Interrupted
    return failed


def _start(planned: Planned, device: str) -> subprocess.Popen[bytes]:
    kind = device if device in ("auto", "cpu") else "cuda"
    gpu = {"CUDA_VISIBLE_DEVICES": device} if kind == "cuda" else {}
    command = [sys.executable, *planned.command, "--device", kind]
    try:
        planned.folder.mkdir(parents=True, exist_ok=True)
        with (planned.folder / "console.txt").open("ab") as console:
            return subprocess.Popen(
                command, stdout=console, stderr=subprocess.STDOUT, env=os.environ | gpu
            )
    except OSError as error:
        raise UserError(f"{planned.folder}: cannot be written ({error})") from None


def _ending(started: Started, code: int) -> str:
    """What became of a run: its scores, or its last words."""
    folder = started.planned.folder
    if code in STOPPED:
        return "stopped; the same command goes on from there"
    if code:
        return f"FAILED (exit code {code}): {_last_line(folder / 'console.txt')}"
    try:
        return result(Run(folder))
    except UserError as error:
        return f"FAILED: {error}"


def _last_line(console: Path) -> str:
    lines = console.read_text(encoding="utf-8", errors="backslashreplace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
