"""A method's script whose data workers hang from the second epoch on.

`python -m tests.hanging_training MARKER SECONDS METHOD [arguments of the method]`: the file MARKER
appears when a data worker hangs; the training waits SECONDS for a batch.
"""

import sys
import time
from pathlib import Path

import dataset.loaders
from dataset.datasets import TrainingSet
from engine.command import main as train
from tests.conftest import METHODS


def main():
    marker, seconds = Path(sys.argv.pop(1)), float(sys.argv.pop(1))
    kind, sample = METHODS[sys.argv.pop(1)], TrainingSet.__getitem__

    def hanging(self, key):
        if key[0] == 1:
            marker.touch()
            time.sleep(600)
        return sample(self, key)

    TrainingSet.__getitem__ = hanging
    dataset.loaders.BATCH_TIMEOUT = seconds
    train(kind)


if __name__ == "__main__":
    main()
