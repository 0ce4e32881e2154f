"""The quickstart with a few steps, and commands that start others, from any folder."""

import os
import subprocess
import sys
from functools import partial

import pytest
import torch
from PIL import Image

from engine import command, dry_run
from fixmatch import FixMatch
from supervised import SupOnly
from tests.conftest import REPOSITORY, write_programs
from tools import quickstart

PYTHON = """#!/bin/sh
case "$1 $2" in
    '-c '*) exit $OLD ;;
    --version*) echo Python 3.9.1 ;;
    *pip) ;;
    *) echo "$PWD: $@ with $PYTHONPATH" ;;
esac
"""
"""A stub of Python that installs nothing and prints its command line; too old where OLD is 1."""
STARTS = {
    "supervised.py": partial(command.main, SupOnly),
    "fixmatch.py": partial(command.main, FixMatch),
}


def test_quickstart(run, tmp_path, monkeypatch):
    """Run the started scripts in this process, on fewer images."""

    def start(script, *arguments):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [script, *map(str, arguments)])
            STARTS[script]()

    def few(root, **settings):
        make(root, **settings | {"unlabeled": 16, "val": 2, "progress": False})

    make = quickstart.generate
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(quickstart, "run_script", start)
    monkeypatch.setattr(quickstart, "generate", few)
    sets = ["--set", "epochs=1", "epoch_length=2", "data.workers=0"]
    output = run(quickstart, "--save-path", "my runs", *sets).output()
    *_, table = output.partition("mIoU (best)")
    assert all(name in table for name in ("SupOnly", "FixMatch", "pictures.png", "next"))
    with Image.open("my runs/pictures.png") as pictures:
        assert pictures.width == 5 * 150  # inches and pixels per inch: the smallest width


def test_scripts_are_found_from_any_folder(tmp_path):
    """Start quickstart.sh, and scripts the way active learning does."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"VIRTUAL_ENV": sys.prefix, "OLD": "0"}

    def run(*command, **variables):
        done = subprocess.run(command, cwd=tmp_path, env=environment | variables,
                              capture_output=True, text=True)  # fmt: skip
        return done.stdout if done.returncode == 0 else (done.returncode, done.stderr)

    write_programs(tmp_path, {"python": PYTHON})
    path = f"{tmp_path}:{os.environ['PATH']}"
    output = run("sh", REPOSITORY / "tools/quickstart.sh", "--save-path", "my runs", PATH=path)
    assert output == f"{tmp_path}: -m tools.quickstart --save-path my runs with {REPOSITORY}\n"
    output = run("sh", REPOSITORY / "tools/quickstart.sh", PATH=path, OLD="1")
    assert output == (2, "error: python is Python 3.9.1; Python 3.10 or newer is needed "
                    "(deactivate the environment)\n")  # fmt: skip
    commands = ("supervised.py", "--help"), ("-m", "tools.autolabel", "--help")
    code = f"from util.cli import run_script; [run_script(*command) for command in {commands}]"
    output = run(sys.executable, "-c", code, PYTHONPATH=str(REPOSITORY))
    assert "Train SupOnly" in output and "tools.autolabel" in output


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
