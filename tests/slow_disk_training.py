"""A method's script that is asked to stop after its first step, with a slow disk.

`python -m tests.slow_disk_training FOLDER METHOD [arguments of the method]`: each process writes to
FOLDER if the latest checkpoint existed when the process ended.
"""

import os
import signal
import sys
import time
from pathlib import Path

from engine import run_dir as log
from engine.command import main as train
from engine.trainer import Trainer
from tests.conftest import METHODS
from util import distributed


def main():
    folder, kind = Path(sys.argv.pop(1)), METHODS[sys.argv.pop(1)]
    step, write = Trainer.optimize, log.save_atomically

    def stopping_step(self, raw, number):
        scalars = step(self, raw, number)
        if distributed.is_main():
            os.kill(os.getpid(), signal.SIGTERM)
        return scalars

    def slow_write(*args):
        time.sleep(2)
        write(*args)

    Trainer.optimize, log.save_atomically = stopping_step, slow_write
    rank = os.environ["RANK"]
    try:
        train(kind)
    finally:
        run = Path(sys.argv[sys.argv.index("--save-path") + 1])
        (folder / f"left-{rank}").write_text(str((run / "latest.pth").exists()))


if __name__ == "__main__":
    main()
