"""Runs that the tests of prediction share."""

import contextlib
import io
import shutil
import sys
from pathlib import Path

import pytest

from engine.command import main
from supervised import SupOnly
from tests.conftest import Toy
from tests.own_images import TINY
from tools.make_shapes.files import generate


def train_quietly(toy: Toy, save_path: Path) -> None:
    """Train two steps, without output."""
    argv = ["supervised.py", *toy.argv(save_path, "--set", *TINY)]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr(sys, "argv", argv)
        main(SupOnly)


@pytest.fixture(scope="session")
def shared_run(tmp_path_factory) -> Path:
    """A folder with a toy and the run directory of a training on it; not to be changed."""
    folder = tmp_path_factory.mktemp("shared")
    train_quietly(Toy(folder / "toy"), folder / "run")
    return folder


@pytest.fixture
def trained(shared_run, toy, tmp_path) -> Path:
    """A copy of the shared run directory, whose config names the images of `toy`."""
    run = tmp_path / "run"
    shutil.copytree(shared_run / "run", run)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(str(shared_run / "toy"), str(toy.folder)))
    return run


@pytest.fixture(scope="session")
def pair_run(tmp_path_factory) -> Path:
    """The run directory of a network of pairs; not to be changed."""
    folder = tmp_path_factory.mktemp("pairs")
    generate(folder / "data", labeled=3, unlabeled=1, val=1, size=40, pairs=True, progress=False)
    toy = Toy(folder / "toy")
    toy.use_pairs(folder / "data")
    train_quietly(toy, folder / "run")
    return folder / "run"
