"""Plant faults, one at a time, and see whether the tests find them.

Each fault is a change of a character or a word (mutmut's mutations).  The tests that run its line
are run with it, in a process of their own; no file is changed.  The same command goes on where it
ended, and tries again what was not found once its tests have changed.  What is left is listed with
its lines; exit code 1: some of it is not explained in faults/explained.yaml.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from experiments.methods import method_scripts
from util.command import exit_with_one_line
from util.errors import UserError
from util.writing import make_folder

with exit_with_one_line():
    try:
        from faults.forks import FAILED, Fork, fork, run_planted, warm_up
        from faults.known import Explained, Results
        from faults.plant import Fault, faults_of
        from faults.seen import Coverage, Seen, recording
    except ModuleNotFoundError as error:
        raise UserError(
            f"tools.faults: needs {error.name}; pip install -r requirements-dev.txt"
        ) from None

ROOT = Path(__file__).resolve().parents[1]
DECIDING = [
    *(f"{name}.py" for name in method_scripts()),
    "semi", "model", "dataset", "engine/optimizer.py", "engine/run_state.py", "engine/method.py",
    "engine/class_weights.py", "util/evaluation.py", "util/inference.py", "util/confusion.py",
    "util/boundary.py", "util/normalise.py",
    "util/label_map.py", "util/checkpoint.py", "util/config.py", "util/config_file.py",
    "data_tools/partition.py", "data_tools/layout.py",
]  # fmt: skip
"""What decides a result."""
LEFT_OUT = {"benchmarks", "distributed", "equivalence", "faults", "fuzz", "interruption",
            "restarts", "scripts", "slurm", "soak"}  # fmt: skip
"""Tests that launch processes, which would know nothing of the fault."""
Work = TypeVar("Work")


class Tried(NamedTuple):
    fault: Fault
    tests: list[str]
    found: bool | None
    """None: not yet."""


def main() -> None:
    options = arguments()
    with exit_with_one_line():
        make_folder(options.folder)
        deadline = time.monotonic() + 60 * options.minutes
        faults = [fault for path in files(options.paths) for fault in faults_of(ROOT, path)]
        explained = Explained()
        for path in {fault.path for fault in faults}:
            explained.check(path, (f for f in faults if f.path == path))
        warm_up()
        coverage = read_coverage(options.folder, options.processes, deadline)
        results = Results(options.folder / "results.json")
        try_all(faults, coverage, results, options, deadline)
        tried = [look_up(fault, coverage, results) for fault in faults]
        unexplained = tell(tried, explained)
    sys.exit(1 if unexplained else 0)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("paths", nargs="*", default=DECIDING, metavar="PATH",
                        help="files and folders (default: what decides a result)")  # fmt: skip
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=ROOT / ".faults",
                        help="where results are kept (default: .faults)")  # fmt: skip
    return parser.parse_args()


def files(paths: Iterable[str]) -> list[str]:
    """Python files, relative to the repository."""
    found = []
    for path in paths:
        place = (ROOT / path).resolve()
        if not place.exists() or not place.is_relative_to(ROOT):
            raise UserError(f"{path}: no file or folder of the repository")
        if place.is_file() and place.suffix != ".py":
            raise UserError(f"{path}: expected a folder, or a file that ends in .py")
        there = sorted(place.rglob("*.py")) if place.is_dir() else [place]
        found += [str(file.relative_to(ROOT)) for file in there]
    return found


def read_coverage(folder: Path, processes: int, deadline: float) -> Coverage:
    """Which tests run which lines; what is not known, or has changed, is recorded."""
    known, missing = [], []
    for file in sorted((ROOT / "tests").glob("test_*.py")):
        if file.stem.removeprefix("test_") in LEFT_OUT:
            continue
        seen = Seen.load(folder / f"{file.stem}.json", ROOT)
        if seen is None:
            missing.append(file.stem)
        else:
            known.append(seen)
    for name, code in in_turn(
        missing, lambda name: recording(ROOT, f"tests/{name}.py", folder), processes, deadline
    ):
        seen = Seen.load(folder / f"{name}.json", ROOT)
        if seen is None:
            raise UserError(f"tests/{name}.py: ended with {code}; see {folder / name}.txt")
        print(f"tests/{name}.py: {len(seen.seconds)} tests", flush=True)
        known.append(seen)
        missing.remove(name)
    if missing:
        raise UserError(f"--minutes: over before {len(missing)} files of tests had run; go on")
    return Coverage(known)


def try_all(
    faults: list[Fault],
    coverage: Coverage,
    results: Results,
    options: argparse.Namespace,
    deadline: float,
) -> None:
    """In random order, so that what a part of them tells holds for all."""
    todo = [one for fault in faults if (one := look_up(fault, coverage, results)).found is None]
    random.Random(0).shuffle(todo)
    output = options.folder / "last.txt"

    def begin(one: Tried) -> Fork:
        seconds = 60 + 5 * sum(coverage.seconds[test] for test in one.tests)
        return fork(partial(run_planted, ROOT, one.fault, one.tests), ROOT, output, seconds)

    for number, (one, code) in enumerate(in_turn(todo, begin, options.processes, deadline), 1):
        if code == FAILED:
            raise UserError(f"{output}: a process could not begin its tests; see there")
        results.note(one.fault, code != 0, coverage.state_of(one.tests))
        print(f"\r{number} of {len(todo)} tried", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def look_up(fault: Fault, coverage: Coverage, results: Results) -> Tried:
    """A fault that no test runs is not found."""
    tests = coverage.tests_of(fault)
    found = results.found(fault, coverage.state_of(tests)) if tests else False
    return Tried(fault, tests, found)


def in_turn(
    works: Iterable[Work], begin: Callable[[Work], Fork], processes: int, deadline: float
) -> Iterator[tuple[Work, int]]:
    """Each with its exit code, so many at a time, until the deadline; what runs then is ended."""
    waiting, running = iter(list(works)), list[tuple[Work, Fork]]()
    try:
        while time.monotonic() < deadline:
            while len(running) < processes and (work := next(waiting, None)) is not None:
                running.append((work, begin(work)))
            if not running:
                return
            for pair in list(running):
                if (code := pair[1].end()) is not None:
                    running.remove(pair)
                    yield pair[0], code
            time.sleep(0.02)
    finally:
        for _, process in running:
            process.kill()


def tell(tried: list[Tried], explained: Explained) -> int:
    """A line for each package, and each fault that is left; returns how many these are."""
    packages: dict[str, list[Tried]] = {}
    for one in tried:
        package, slash, _ = one.fault.path.rpartition("/")
        packages.setdefault(package if slash else "methods", []).append(one)
    titles = ("faults", "tried", "found", "explained", "left", "found")
    print(" " * 12 + "".join(f"{title:>10}" for title in titles))
    left = []
    for package, ones in sorted(packages.items()):
        known = [one for one in ones if one.found is not None]
        missed = [one for one in known if not one.found]
        unexplained = [one for one in missed if not explained.why(one.fault)]
        found, left = len(known) - len(missed), left + unexplained
        counts = (len(ones), len(known), found, len(missed) - len(unexplained), len(unexplained))
        share = found / max(found + len(unexplained), 1)
        print(f"{package:<12}" + "".join(f"{n:>10}" for n in counts) + f"{share:>10.1%}")
    for one in left:
        unseen = "" if one.tests else "  (no test runs it)"
        print(f"\n{one.fault.path}:{one.fault.first}{unseen}\n  {one.fault.before}")
        print(f"  {one.fault.after}")
    return len(left)


if __name__ == "__main__":
    main()
