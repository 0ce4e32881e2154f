"""Runs that are killed, resumed by the same command, and compared with an undisturbed run.

`python -m tests.robustness.fuzzing.kill NUMBER RUN METHOD [arguments of the method]` kills itself
right before the access of this number (from 0) to a file of the run.
"""

import itertools
import os
import random
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from engine.command import main as train
from tests.conftest import METHODS, Toy, json_lines, saved
from tests.forked import Forked
from tests.runs import assert_equal

FILE_EVENTS = ("open", "os.rename", "os.link", "os.remove", "os.truncate")


def main() -> None:
    number, run, method = int(sys.argv.pop(1)), sys.argv.pop(1), sys.argv.pop(1)
    touched = itertools.count()

    def hook(event: str, args: Sequence[object]) -> None:
        if event in FILE_EVENTS and str(args[0]).startswith(run) and next(touched) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)  # Python calls it before each file access
    train(METHODS[method])


def survive(method: str, toy: Toy, run: Path, deaths: Iterable[float | int] = ()) -> int:
    """Kill a run at each death, then let it end; return the number of kills.

    A death is a time in seconds (float), or a number of file accesses (int).
    """
    kills = 0
    for death in [*deaths, None]:
        number = death if isinstance(death, int) else -1
        arguments = number, run, method, *toy.argv(run, "--device", "cpu")
        running = Forked("-m", "tests.robustness.fuzzing.kill", *arguments)
        done = running.end(death) if isinstance(death, float) else running.end()
        assert done.returncode in (0, -signal.SIGKILL), done.stdout + done.stderr
        kills += done.returncode == -signal.SIGKILL
    return kills


def assert_same(whole: Path, run: Path) -> None:
    """Compare file names, checkpoints (bit by bit) and history."""
    names = [sorted(path.name for path in folder.iterdir()) for folder in (whole, run)]
    assert names[0] == names[1], f"files {names[0]} and {names[1]}"
    for name in (name for name in names[0] if name.endswith(".pth")):
        assert_equal(*(saved(folder / name) for folder in (whole, run)), name)
    histories = (json_lines(folder / "metrics.jsonl") for folder in (whole, run))
    assert_equal(*histories, "metrics.jsonl")


def anywhere(method: str, kills: int, seed: int, folder: Path) -> int:
    """Kill a run of 18 steps, with checkpoints inside its epochs, at moments and file accesses."""
    toy = Toy(folder / "toy").change(epochs=3, epoch_length=6, save_every=2)
    begin = time.monotonic()
    survive(method, toy, folder / "whole")
    rng, seconds = random.Random(f"{seed} {method}"), (time.monotonic() - begin) / 2
    deaths = [rng.randrange(50) if n % 2 else rng.uniform(0, seconds) for n in range(kills)]
    found = survive(method, toy, folder / "run", deaths)
    assert_same(folder / "whole", folder / "run")
    return found


def before_each_file(method: str, folder: Path) -> int:
    """Kill runs of one step, each before one later file access, until a run is not killed."""
    toy = Toy(folder / "toy").change(epochs=1, epoch_length=1)
    survive(method, toy, folder / "whole")
    for number in itertools.count():
        is_killed = survive(method, toy, folder / str(number), [number])
        assert_same(folder / "whole", folder / str(number))
        if not is_killed:
            break
    return number


if __name__ == "__main__":
    main()
