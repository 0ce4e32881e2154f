"""A run that the tests of prediction share."""

from pathlib import Path

import pytest

from tests.conftest import Toy, train_quietly
from tools.make_shapes.files import generate


@pytest.fixture(scope="session")
def pair_run(tmp_path_factory) -> Path:
    """The run directory of a network of pairs; not to be changed."""
    folder = tmp_path_factory.mktemp("pairs")
    generate(folder / "data", labeled=3, unlabeled=1, val=1, size=40, pairs=True, progress=False)
    toy = Toy(folder / "toy")
    toy.use_pairs(folder / "data")
    train_quietly(toy, folder / "run")
    return folder / "run"
