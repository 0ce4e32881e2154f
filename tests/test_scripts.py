"""The shell scripts, as their users run them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

ENVIRONMENT = {
    **{k: v for k, v in os.environ.items() if k not in ("NNODES", "save_path")},
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "VIRTUAL_ENV": sys.prefix,
}


def sh(script, *arguments, **variables):
    return subprocess.run(
        ["sh", f"tools/{script}.sh", *map(str, arguments)],
        cwd=REPOSITORY, env=ENVIRONMENT | {k: str(v) for k, v in variables.items()},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture
def variables(toy, tmp_path):
    return {
        "method": "corrmatch",
        "config": toy.config,
        "labeled_id_path": toy.path("labeled"),
        "unlabeled_id_path": toy.path("unlabeled"),
        "save_path": tmp_path / "a run",
    }


def test_train_and_val(variables):
    done = sh("train", 0, 29511, "--set", "epochs=1", **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    run = variables["save_path"]
    assert "mIoU" in done.stdout and (run / "console.txt").read_text() == done.stdout
    done = sh("val", 0, 29511, config=variables["config"], checkpoint_path=run / "latest.pth")
    assert done.returncode == 0 and "images of" in done.stdout

    variables["method"] = "supervised"
    variables["save_path"] = run.parent / "supervised"
    done = sh("train", 0, 29511, "--dry-run", **variables)
    assert done.returncode == 0 and "all well" in done.stdout


def test_exit_status_is_the_trainings(variables):
    done = sh("train", 0, 29511, "--set", "epochs=0", **variables)
    assert done.returncode == 2
    assert "error: " in (variables["save_path"] / "console.txt").read_text()
    done = sh("train", 2, 29512, "--set", "epochs=0", "--device", "cpu", **variables)
    assert done.returncode == 2


@pytest.mark.parametrize("arguments", [(), (1,), ("x", 1), (0, "x")])
def test_usage(arguments):
    done = sh("train", *arguments)
    assert done.returncode == 2 and ("usage" in done.stderr or "error: " in done.stderr)
