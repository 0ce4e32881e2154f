"""Gradients do not depend on how a global batch is split over processes and forward passes."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image

from tests.conftest import METHODS, Toy, saved, write_sample
from tests.forked import spread
from tests.gradients import gradient, prepared, seen


@pytest.fixture(scope="module")
def even(tmp_path_factory):
    """A dataset whose crops have no padding and whose masks have no ignored pixel."""
    toy = Toy(tmp_path_factory.mktemp("even") / "toy")
    toy.change(batch_size=8, conf_thresh=0.36, epoch_length=3)
    for name in ("l0", "l1", "l2"):
        write_sample(toy.root, name, (80, 72))
        path = toy.root / f"masks/{name}.png"
        mask = np.array(Image.open(path))
        Image.fromarray(np.where(mask == 255, 0, mask)).save(path)
    for number in range(5):
        write_sample(toy.root, f"u{number}", (80, 72), mask=False)
    return toy


@pytest.fixture(scope="module")
def alone(even):
    """Gradients of one process that takes the whole batch at once."""
    return {name: gradient(prepared(name, even.config, even.folder)) for name in METHODS}


@pytest.fixture(scope="module", params=[2, 4])
def several(request, even):
    """Return the output folder of `tests.gradients` and its number of processes."""
    folder = even.folder / str(request.param)
    folder.mkdir()
    done = spread("-m", "tests.gradients", even.config, folder, processes=request.param)
    assert done.returncode == 0, done.stderr
    return folder, request.param


def distance(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def test_processes_compute_the_gradient_of_one(several, alone):
    folder, _ = several
    found = saved(folder / "gradients.pth")
    apart = {name: distance(found[name], alone[name]) for name in METHODS}
    assert all(d < 1e-5 for d in apart.values()), apart


@pytest.mark.parametrize("method", METHODS)
def test_accumulation_computes_the_gradient_of_one_forward(method, even, alone):
    parts = gradient(prepared(method, even.config, even.folder, "micro_batch=2"))
    assert distance(parts, alone[method]) < 1e-5


def test_every_validation_image_once(several, even):
    """Validate 3 images; with four processes, one process gets none."""
    folder, processes = several
    ranks = [json.loads((folder / f"seen-{r}.json").read_text()) for r in range(processes)]
    one = seen(prepared("supervised", even.config, even.folder))
    validated = sorted(itertools.chain(*(r["validated"] for r in ranks)))
    assert validated == one["validated"] == [0, 1, 2]
    assert all(r["confusion"] == one["confusion"] for r in ranks)


def test_unequally_many_labelled_pixels(even):
    """Average gradients of processes and forwards, as published; each averages over its own pixels,
    so the result is not the gradient of the mean over all pixels (docs/reliability.md)."""
    training = prepared("supervised", even.config, even.folder)
    raw = next(iter(training.train_loader))
    raw["labeled"]["mask"][8:, 4:] = 255
    halves = [{"labeled": {k: v[part] for k, v in raw["labeled"].items()}}
              for part in (slice(8), slice(8, None))]  # fmt: skip
    whole, first, second = (gradient(training, batch) for batch in (raw, *halves))
    training = prepared("supervised", even.config, even.folder, "micro_batch=8")
    assert distance(gradient(training, raw), (first + second) / 2) < 1e-5
    assert distance(whole, (first + second) / 2) > 0.1
