"""A method's script that also writes down, per step, which samples it saw and its weights' digest.

`python -m tests.spying_training FOLDER METHOD [arguments of the method]`; one file per process.
"""

import hashlib
import io
import json
import sys
from pathlib import Path

import torch

from dataset.sets import TrainingSet
from engine.fit import main as train
from engine.training import Training
from tests.conftest import METHODS
from tests.prototypes import Prototypes
from util import dist


def digest(module):
    file = io.BytesIO()  # all of the state, also what is no tensor
    torch.save(module.state_dict(), file)
    return hashlib.sha256(file.getvalue()).hexdigest()


def main():
    folder, script = Path(sys.argv.pop(1)), sys.argv.pop(1)
    kind = (METHODS | {"prototypes": Prototypes})[script]
    seen, get, step = [], TrainingSet.__getitem__, Training.optimize

    def spying_get(self, key):
        seen.append(key)
        return get(self, key)

    def spying_step(self, raw, number):
        scalars = step(self, raw, number)
        record = {"step": number, "seen": list(seen), "digest": digest(self.method)}
        seen.clear()
        with (folder / f"spy-{dist.rank()}.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
        return scalars

    TrainingSet.__getitem__, Training.optimize = spying_get, spying_step
    train(kind)


if __name__ == "__main__":
    main()
