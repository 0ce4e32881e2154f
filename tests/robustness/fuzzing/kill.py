"""Runs that are killed, resumed by the same command, and compared with an undisturbed run."""

import itertools
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from engine.command import main
from tests.conftest import METHODS, Toy, json_lines, saved
from tests.engine.test_resume import assert_equal

# Forked, so that no process has to import torch.
PROCESSES = multiprocessing.get_context("fork")
FILE_EVENTS = ("open", "os.rename", "os.link", "os.remove", "os.truncate")
Death = float | int | None
"""Time of a kill in seconds (float), or number of the run's file accesses before it (int)."""


class Different(AssertionError):
    """A killed run ended differently from an undisturbed run."""


def live(method: str, argv: list[str], run: Path, death: Death) -> None:
    """Run a method's command line; kill the process right before a file access."""
    with run.with_suffix(".out").open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    touched = itertools.count()

    def hook(event: str, args: Sequence[object]) -> None:
        if event in FILE_EVENTS and str(args[0]).startswith(str(run)) and next(touched) == death:
            os.kill(os.getpid(), signal.SIGKILL)

    if isinstance(death, int):
        sys.addaudithook(hook)  # Python calls it before each file access
    sys.argv = [method, *argv]
    main(METHODS[method])


class Trial:
    """An undisturbed run of a method, and runs of the same config that are killed."""

    def __init__(self, method: str, folder: Path, **settings: int):
        self.method, self.whole = method, folder / "whole"
        self.toy = Toy(folder / "toy").change(**settings)
        begin = time.monotonic()
        self.survive(self.whole, [])
        self.seconds = time.monotonic() - begin

    def survive(self, run: Path, deaths: Iterable[Death]) -> int:
        """Kill a run at each death, then let it end; return the number of kills.

        Raises `Different` for a run that cannot resume or differs from the undisturbed one.
        """
        kills = 0
        for death in [*deaths, None]:
            argv = self.toy.argv(run, "--device", "cpu")
            process = PROCESSES.Process(target=live, args=(self.method, argv, run, death))
            process.start()
            process.join(death if isinstance(death, float) else None)
            process.kill()
            process.join()
            if process.exitcode == -signal.SIGKILL:
                kills += 1
            elif process.exitcode:
                words = run.with_suffix(".out").read_text()[-2000:]
                raise Different(f"exit code {process.exitcode}: {words}")
        assert_same(self.whole, run)
        return kills


def assert_same(whole: Path, run: Path) -> None:
    """Compare file names, checkpoints (bit by bit) and history; raises `Different`."""
    try:
        names = [sorted(path.name for path in folder.iterdir()) for folder in (whole, run)]
        assert names[0] == names[1], f"files {names[0]} and {names[1]}"
        for name in (name for name in names[0] if name.endswith(".pth")):
            assert_equal(*(saved(folder / name) for folder in (whole, run)), name)
        histories = (json_lines(folder / "metrics.jsonl") for folder in (whole, run))
        assert_equal(*histories, "metrics.jsonl")
    except AssertionError as error:
        raise Different(str(error)) from None


def anywhere(method: str, kills: int, seed: int, folder: Path) -> int:
    """Kill a run of 18 steps, with checkpoints inside its epochs, at moments and file accesses."""
    trial = Trial(method, folder, epochs=3, epoch_length=6, save_every=2)
    rng = random.Random(f"{seed} {method}")
    moments = (rng.uniform(0, trial.seconds / 2) for _ in range(kills))
    deaths = [rng.randrange(50) if n % 2 else moment for n, moment in enumerate(moments)]
    return trial.survive(folder / "run", deaths)


def before_each_file(method: str, folder: Path) -> int:
    """Kill runs of one step, each before one later file access, until a run is not killed."""
    trial = Trial(method, folder, epochs=1, epoch_length=1)
    return next(n for n in itertools.count() if not trial.survive(folder / str(n), [n]))


def kill(methods: Sequence[str], kills: int, seed: int) -> int:
    """Run all trials and print a line for each; return the number of trials with a difference."""
    trials = {method: partial(anywhere, method, kills, seed) for method in methods}
    trials["at each file"] = partial(before_each_file, "supervised")
    differing = 0
    print(f"{'':<14}{'kills':>6}  equal")
    for name, trial in trials.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                print(f"{name:<14}{trial(Path(folder)):>6}  yes", flush=True)
            except Different as error:
                differing += 1
                print(f"{name:<14}{'':>6}  NO: {error}", flush=True)
    return differing
