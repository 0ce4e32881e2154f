"""Runs that are killed, resumed by the same command, and compared with an undisturbed run."""

import itertools
import json
import random
import signal
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import torch

from tests.conftest import Toy
from tests.engine.test_resume import assert_equal, first_steps
from tests.robustness.fuzzing.life import FILE, Death, Life, draw_deaths


class Different(AssertionError):
    """A killed run ended differently from an undisturbed run."""


class Trial:
    """An undisturbed run of a method, and runs of the same config that are killed."""

    def __init__(self, method: str, folder: Path, **settings: int):
        self.method, self.whole = method, folder / "whole"
        self.toy = Toy(folder / "toy")
        self.toy.tree |= settings
        self.toy.write_config()
        self.survive(self.whole, [])

    def survive(self, run: Path, deaths: Iterable[Death]) -> list[str]:
        """Kill a run at each death, then let it end; return the places of the deaths.

        Raises `Different` for a run that cannot resume or differs from the undisturbed one.
        """
        places = []
        for death in [*deaths, None]:
            life = Life(self.method, self.toy.argv(run, "--device", "cpu"), run, death)
            code = life.end()
            if code == -signal.SIGKILL:
                places.append(life.where())
            elif code:
                words = run.with_suffix(".out").read_text()[-2000:]
                raise Different(f"exit code {code}: {words}")
        assert_same(self.whole, run)
        return places


def assert_same(whole: Path, run: Path) -> None:
    """Compare file names, checkpoints (bit by bit) and history; raises `Different`."""
    try:
        names = [sorted(path.name for path in folder.iterdir()) for folder in (whole, run)]
        assert names[0] == names[1], f"files {names[0]} and {names[1]}"
        for name in (name for name in names[0] if name.endswith(".pth")):
            states = [torch.load(folder / name, weights_only=True) for folder in (whole, run)]
            assert_equal(*states, name)
        lines = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (whole, run)]
        assert_equal(*([json.loads(line) for line in one] for one in lines), "metrics.jsonl")
    except AssertionError as error:
        raise Different(str(error)) from None


def anywhere(method: str, kills: int, seed: int, folder: Path) -> list[str]:
    """Kill a run of 18 steps, with checkpoints inside its epochs, several times."""
    trial = Trial(method, folder, epochs=3, epoch_length=6, save_every=2)
    deaths = draw_deaths(random.Random(f"{seed} {method}"), kills, steps=18)
    places = trial.survive(folder / "run", deaths)
    # A checkpoint is written before the fifth step.
    late = any(death.after > 4 for death in deaths[: len(places)])
    if late and not any(first_steps(folder / "run")):
        raise Different("each start was from step 0")
    return places


def before_each_file(method: str, folder: Path) -> list[str]:
    """Kill runs of one step, each before one later file access, until a run is not killed; return
    the places of the kills."""
    trial, places = Trial(method, folder, epochs=1, epoch_length=1), []
    for number in itertools.count():
        if not (where := trial.survive(folder / str(number), [Death(FILE, 1, number)])):
            return places
        places += where


def kill(methods: Sequence[str], kills: int, seed: int) -> int:
    """Run all trials and print a line for each; return the number of trials with a difference."""
    trials = {method: partial(anywhere, method, kills, seed) for method in methods}
    trials["at each file"] = partial(before_each_file, "supervised")
    differing = 0
    print(f"{'':<14}{'kills':>6}  {'equal':<7}place, steps started; *: half-written file")
    for name, trial in trials.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                places, verdict = trial(Path(folder)), "yes"
            except Different as error:
                places, verdict = [str(error)], "NO"
        differing += verdict == "NO"
        counted = (f"{where} (x{n})" if n > 1 else where for where, n in Counter(places).items())
        print(f"{name:<14}{len(places):>6}  {verdict:<7}{', '.join(counted)}", flush=True)
    return differing
