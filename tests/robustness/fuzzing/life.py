"""Training in a separate process, which reports its progress and is killed at a given place."""

import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from engine import validation
from engine.command import main
from engine.run_dir import RunDir
from engine.trainer import Trainer
from tests.conftest import METHODS

# Forked, so that no process has to import torch.
PROCESSES = multiprocessing.get_context("fork")
PLACES = ["start", "step", "validation", "checkpoint"]
WATCHED = [(Trainer, "optimize", 1), (validation, "evaluate_network", 2), (RunDir, "save", 3)]
FILE = "file"


class Death(NamedTuple):
    """Point at which SIGKILL ends the process."""

    place: str
    """One of PLACES, or FILE: right before a file of the run is opened, renamed or linked."""
    after: int
    """Number of steps of the run that have started before."""
    delay: float
    """Seconds to wait at the place; for FILE, the number of earlier file accesses."""


def draw_deaths(rng: random.Random, count: int, steps: int) -> list[Death]:
    """Draw deaths spread over a run of `steps` steps; FILE is twice as frequent as other places."""
    kinds = ["step", "validation", "checkpoint", FILE, FILE, "start"]
    rng.shuffle(kinds)
    places = [kinds[number % len(kinds)] for number in range(count)]
    longest = {"start": 0.3, FILE: 12.0}
    delays = [rng.uniform(0, longest.get(place, 0.03)) for place in places]
    return list(map(Death, places, sorted(rng.choices(range(1, steps + 1), k=count)), delays))


class Life:
    """Process that runs a method's command line in `run` until it ends or is killed."""

    def __init__(self, method: str, argv: list[str], run: Path, death: Death | None = None):
        self.run, self.death = run, death
        self._place, self._step = (PROCESSES.RawValue("i", value) for value in (0, 0))
        self._process = PROCESSES.Process(target=self._live, args=(method, argv))

    def end(self) -> int:
        """Run to the end; return the exit code, negative if the process was killed."""
        self._process.start()
        if self.death is not None and self.death.place != FILE:
            while self._process.is_alive() and not self._is_time(self.death):
                time.sleep(0.001)
            time.sleep(self.death.delay)
            self._process.kill()
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def where(self) -> str:
        """Return the place and step of the end, with a * if a file was left half-written."""
        half = "*" if list(self.run.glob("*.partial")) else ""
        step = f" {self._step.value}" if self._step.value else ""
        return f"{PLACES[self._place.value]}{step}{half}"

    def _is_time(self, death: Death) -> bool:
        if self._step.value < death.after and death.place != "start":
            return False
        if death.place == "checkpoint":
            return any(self.run.glob("latest.pth.*.partial"))
        return PLACES[self._place.value] == death.place

    def _live(self, method: str, argv: list[str]) -> None:
        with self.run.with_suffix(".out").open("ab") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        for owner, name, place in WATCHED:
            setattr(owner, name, self._showing(getattr(owner, name), place, name == "optimize"))
        if self.death is not None and self.death.place == FILE:
            sys.addaudithook(self._before_file(self.death))
        sys.argv = [method, *argv]
        main(METHODS[method])

    def _showing(self, original: Callable[..., Any], place: int, step: bool) -> Callable[..., Any]:
        def showing(*args: Any, **named: Any) -> Any:
            self._place.value = place
            if step:
                self._step.value = args[2] + 1
            return original(*args, **named)

        return showing

    def _before_file(self, death: Death) -> Callable[[str, Any], None]:
        """Return an audit hook, which Python calls before each file access, to kill the process."""
        touched = 0

        def hook(event: str, args: Any) -> None:
            nonlocal touched
            known = event == "open" or event in ("os.rename", "os.link", "os.remove", "os.truncate")
            if not known or self._step.value < death.after:
                return
            if not str(args[0]).startswith(str(self.run)):
                return
            touched += 1
            if touched > death.delay:
                os.kill(os.getpid(), signal.SIGKILL)

        return hook
