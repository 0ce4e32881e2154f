"""Long versions of two tests of the suite; needs requirements-dev.txt."""

import argparse
import sys
import tempfile
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.conftest import METHODS
from tests.robustness.fuzzing.kill import anywhere, before_each_file


def failures(trials: dict[str, Callable[[Path], object]]) -> int:
    """Run each trial in a new folder and print what it returns; return how many fail."""
    failed = 0
    for name, trial in trials.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                print(f"{name}: {trial(Path(folder))}", flush=True)
            except Exception:
                failed += 1
                print(f"{name}: FAILED\n{traceback.format_exc()}", flush=True)
    return failed


def fuzz(options: argparse.Namespace) -> int:
    from tests.robustness.fuzzing import fuzz  # hypothesis takes a second to import

    factor = options.cases / sum(kind.count for kind in fuzz.KINDS.values())

    def explore(kind: str, folder: Path) -> object:
        return dict(fuzz.explore(kind, fuzz.World(folder), factor, options.seed))

    return failures({kind: partial(explore, kind) for kind in fuzz.KINDS})


def kill(options: argparse.Namespace) -> int:
    trials = {name: partial(anywhere, name, options.kills, options.seed)
              for name in options.methods}  # fmt: skip
    return failures(trials | {"before each file": partial(before_each_file, "supervised")})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add = commands.add_parser("fuzz", help="give random bad files and settings to their readers")
    add.add_argument("--cases", type=int, default=5000)
    add.add_argument("--seed", type=int, default=0)
    add.set_defaults(run=fuzz)
    add = commands.add_parser("kill", help="kill runs at random places, resume and compare them")
    add.add_argument("--kills", type=int, default=6, help="per method")
    add.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    add.add_argument("--seed", type=int, default=0)
    add.set_defaults(run=kill)
    options = parser.parse_args()
    return int(options.run(options) > 0)


if __name__ == "__main__":
    sys.exit(main())
