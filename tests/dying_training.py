"""A method's script of which one process kills itself in the middle of a step.

`python dying_training.py RANK STEP METHOD [arguments of the method]`, STEP counted from the start.
"""

import itertools
import os
import signal
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from conftest import METHODS  # noqa: E402

from engine import fit as engine  # noqa: E402
from util import dist  # noqa: E402


def main():
    rank, last, kind = int(sys.argv.pop(1)), int(sys.argv.pop(1)), METHODS[sys.argv.pop(1)]
    step, steps = kind.step, itertools.count()

    def dying_step(self, batch):
        if next(steps) == last and dist.rank() == rank:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, batch)

    kind.step = dying_step
    engine.main(kind)


if __name__ == "__main__":
    main()
