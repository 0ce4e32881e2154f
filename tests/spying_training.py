"""Trainings that also write the samples and the digest of the weights of each step.

`python -m tests.spying_training FOLDER METHODS [arguments of all methods]`, METHODS such as
`supervised,fixmatch`, writes one file per method and process and one run per method to FOLDER.
"""

import hashlib
import io
import json
import os
import sys
from pathlib import Path

import torch

from dataset.datasets import TrainingSet
from engine import visualize
from engine.command import main as train
from engine.trainer import Trainer
from tests.conftest import METHODS
from tests.prototypes import Prototypes
from util import distributed, rendezvous


def digest(module):
    file = io.BytesIO()  # the whole state, also values that are no tensors
    torch.save(module.state_dict(), file)
    return hashlib.sha256(file.getvalue()).hexdigest()


def main():
    folder, scripts, common = Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:]
    for number, script in enumerate(scripts):
        os.environ[rendezvous.RESTARTS] = str(number)  # its own rendezvous
        kind = (METHODS | {"prototypes": Prototypes})[script]
        # A global batch of 4 for all; without unlabelled images, it is twice `batch_size`.
        batch = 4 if kind.unlabeled else 2
        sys.argv = [
            script,
            *common,
            "--save-path",
            str(folder / script),
            "--set",
            f"batch_size={batch}",
        ]
        spy(folder, script, kind)


def spy(folder, script, kind):
    seen, get, step = [], TrainingSet.__getitem__, Trainer.optimize
    take = visualize.take_pictures

    def spying_get(self, key):
        seen.append(key)
        return get(self, key)

    def spying_step(self, raw, number):
        scalars = step(self, raw, number)
        record = {"step": number, "seen": list(seen), "digest": digest(self.method)}
        seen.clear()
        with (folder / f"{script}-{distributed.rank()}.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
        return scalars

    def unseen_pictures(training):
        before = list(seen)
        pictures = take(training)
        seen[:] = before  # no step saw what they are of
        return pictures

    TrainingSet.__getitem__, Trainer.optimize = spying_get, spying_step
    visualize.take_pictures = unseen_pictures
    train(kind)
    TrainingSet.__getitem__, Trainer.optimize, visualize.take_pictures = get, step, take


if __name__ == "__main__":
    main()
