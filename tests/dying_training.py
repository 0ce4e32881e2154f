"""A method's script of which one process kills itself in the middle of a step.

`python -m tests.dying_training RANK STEP METHOD [arguments of the method]`, STEP
counted from the start.
"""

import itertools
import os
import signal
import sys

from engine import fit as engine
from tests.conftest import METHODS
from util import dist


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
