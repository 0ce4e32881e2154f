"""A method's script in which one process kills itself.

`python -m tests.dying_training DEATHS METHOD [arguments of the method]`: DEATHS has one entry for
each start by the launcher, such as `1-validation-1,0-save-0`: rank, place, and the number (from 0)
of the validation or save at which the process dies.
"""

import io
import itertools
import os
import signal
import sys

import torch

from engine import validation
from engine.command import main as train
from tests.conftest import METHODS
from util import distributed, rendezvous


def die_in(rank, place, number):
    owner, function = {
        "validation": (validation, "evaluate_network"),
        "save": (torch, "save"),
    }[place]
    original, calls = getattr(owner, function), itertools.count()

    def dying(*args, **named):
        if next(calls) == int(number) and distributed.rank() == int(rank):
            if place == "save":
                original(args[0], whole := io.BytesIO())
                args[1].write(whole.getvalue()[:5000])
                args[1].flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **named)

    setattr(owner, function, dying)


def main():
    deaths, kind = sys.argv.pop(1).split(","), METHODS[sys.argv.pop(1)]
    start = int(os.environ[rendezvous.RESTARTS])
    if start < len(deaths):
        die_in(*deaths[start].split("-"))
    train(kind)


if __name__ == "__main__":
    main()
