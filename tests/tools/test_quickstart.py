"""The quickstart with a few steps, and commands that start others, from any folder."""

import os
import subprocess
import sys

import pytest
import torch
from PIL import Image

from engine import dry_run
from tests.conftest import REPOSITORY

PYTHON = f"""#!/bin/sh
[ "$2" = pip ] || exec {sys.executable} "$@"
"""
"""A Python that installs nothing."""


@pytest.fixture
def elsewhere(tmp_path):
    """Run a command in another folder than the repository's; return what it printed."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").write_text(PYTHON)
    (tmp_path / "bin/python").chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    variables = {**os.environ, "VIRTUAL_ENV": sys.prefix, "PATH": path, "OMP_NUM_THREADS": "1"}
    variables.pop("PYTHONPATH", None)

    def run(*command, **more):
        done = subprocess.run(command, cwd=tmp_path, env=variables | more, capture_output=True,
                              text=True, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_quickstart(elsewhere, tmp_path):
    sets = ["epochs=1", "epoch_length=2", "data.workers=0"]
    script = REPOSITORY / "tools/quickstart.sh"
    said = elsewhere("sh", script, "--save-path", "my runs", "--set", *sets)
    assert "Training takes about 1 min on this machine" in said
    *_, table = said.partition("mIoU (best)")
    assert all(name in table for name in ("SupOnly", "FixMatch", "pictures.png", "next"))
    with Image.open(tmp_path / "my runs/pictures.png") as pictures:
        assert pictures.width > pictures.height


def test_scripts_are_found_from_any_folder(elsewhere):
    """Start scripts the way active learning does."""
    commands = ("supervised.py", "--help"), ("-m", "tools.autolabel", "--help")
    code = f"from util.cli import run; [run(*command) for command in {commands}]"
    said = elsewhere(sys.executable, "-c", code, PYTHONPATH=str(REPOSITORY))
    assert "Train SupOnly" in said and "tools.autolabel" in said


@pytest.mark.parametrize(
    ("taken", "estimate"), [([2, 0.1, 0.1, 1, 0.1], 0.1), ([3, 0.2, 3], 3), ([7], 7)]
)
def test_delayed_steps_do_not_change_the_estimate(taken, estimate, monkeypatch):
    """Steps are timed up to five times, and for at most five seconds."""
    clock, left = [0.0], list(taken)
    monkeypatch.setattr(dry_run, "_now", lambda device: clock[0])

    def step():
        clock[0] += left.pop(0)

    assert dry_run._median_seconds(step, torch.device("cpu")) == pytest.approx(estimate)
    assert not left
