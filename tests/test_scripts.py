"""The shell scripts, as their users run them."""

import os
import socket
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


def test_several_machines(variables):
    """Two machines of one process each, here as two launches on this one."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    machines = [
        subprocess.Popen(
            ["sh", "tools/train.sh", "1", str(port), "--device", "cpu", "--set", "epochs=1",
             "batch_size=4"],
            cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=ENVIRONMENT | {k: str(v) for k, v in variables.items()}
            | {"NNODES": "2", "NODE_RANK": str(rank), "MASTER_ADDR": "localhost"},
        )
        for rank in (0, 1)
    ]  # fmt: skip
    outputs = [machine.communicate(timeout=300)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], outputs
    assert "mIoU" in outputs[0] and "mIoU" not in outputs[1]
    assert (variables["save_path"] / "latest.pth").exists()
