"""Long versions of two tests of the suite; needs requirements-dev.txt."""

import argparse
import sys

from tests.conftest import METHODS
from tests.robustness.fuzzing.kill import kill


def fuzz(options: argparse.Namespace) -> int:
    from tests.robustness.fuzzing import fuzz  # imports hypothesis, which takes a second

    return fuzz.fuzz(options.cases, options.seed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add = commands.add_parser("fuzz", help="give random bad input to all commands")
    add.add_argument("--cases", type=int, default=5000)
    add.add_argument("--seed", type=int, default=0)
    add.set_defaults(run=fuzz)
    add = commands.add_parser("kill", help="kill runs at random places, resume and compare them")
    add.add_argument("--kills", type=int, default=6, help="per method")
    add.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    add.add_argument("--seed", type=int, default=0)
    add.set_defaults(run=lambda options: kill(options.methods, options.kills, options.seed))
    options = parser.parse_args()
    return int(options.run(options) > 0)


if __name__ == "__main__":
    sys.exit(main())
