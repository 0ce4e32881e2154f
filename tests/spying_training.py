"""A method's script that also writes down, per step, which samples it saw and its weights' digest.

`python spying_training.py FOLDER METHOD [arguments of the method]`; one file per process.
"""

import hashlib
import importlib
import json
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from dataset.sets import TrainingSet  # noqa: E402
from util import dist, engine  # noqa: E402


def digest(module):
    total = hashlib.sha256()
    for name, value in module.state_dict().items():
        total.update(name.encode() + value.numpy().tobytes())
    return total.hexdigest()


def main():
    folder, script = Path(sys.argv.pop(1)), sys.argv.pop(1)
    kind = next(
        v for v in vars(importlib.import_module(script)).values()
        if isinstance(v, type) and issubclass(v, engine.Method) and v is not engine.Method
    )  # fmt: skip
    seen, get, step = [], TrainingSet.__getitem__, engine.Training.step

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

    TrainingSet.__getitem__, engine.Training.step = spying_get, spying_step
    engine.main(kind)


if __name__ == "__main__":
    main()
