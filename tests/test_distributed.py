"""Two processes on one machine (gloo), really launched."""

import json
import socket
import subprocess
import sys

import pytest
from conftest import REPOSITORY


def launch(*command, processes=2):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    return subprocess.run(
        [sys.executable, "tools/launch.py", "--nproc_per_node", str(processes),
         "--master_port", str(port), *map(str, command)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("method", ["supervised", "corrmatch", "fixmatch", "unimatch"])
def test_two_processes(method, toy, tmp_path):
    # SupOnly fills the places of unlabelled images: a global batch of 4 for both.
    toy.tree["batch_size"] = 2 if method == "supervised" else 4
    toy.tree["epoch_length"] = 3
    toy.write_config()
    run = tmp_path / "run"
    argv = toy.argv(run, "--device", "cpu")
    done = launch("tests/spying_training.py", tmp_path, method, *argv)
    assert done.returncode == 0, done.stderr

    spied = [read(tmp_path / f"spy-{rank}.jsonl") for rank in (0, 1)]
    assert len(spied[0]) == 6
    for a, b in zip(*spied, strict=True):
        assert a["digest"] == b["digest"], f"step {a['step']}: weights differ"
    digests = {step["digest"] for step in spied[0]}
    assert len(digests) == 6, "weights do not change"
    seen = sorted(tuple(key) for rank in spied for step in rank for key in step["seen"])
    assert seen == [(epoch, position) for epoch in (0, 1) for position in range(12)]
    assert sorted(p.name for p in run.iterdir()) == [
        "best.pth", "config.yaml", "latest.pth", "log.txt", "metrics.jsonl", "starts.jsonl",
        "tensorboard",
    ]  # fmt: skip
    assert len(list((run / "tensorboard").iterdir())) == 1

    # Three validation images on two processes: exactly the score that one process computes.
    logged = read(run / "metrics.jsonl")[-1]["scores"]["model"]
    for processes in (1, 2):
        out = tmp_path / f"{processes}.json"
        done = launch(
            "evaluate.py", "--config", toy.config, "--checkpoint", run / "latest.pth",
            "--json", out, "--device", "cpu", processes=processes,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        scores = json.loads(out.read_text())
        assert {k: scores[k] for k in logged} == logged


def test_a_users_mistake_is_told_once_with_exit_code_2(toy, tmp_path):
    done = launch("supervised.py", *toy.argv(tmp_path / "run", "--set", "epochs=0"))
    assert done.returncode == 2
    assert done.stderr.count("error: ") == 1 and "epochs" in done.stderr
    (toy.root / "images/l1.jpg").unlink()
    done = launch("supervised.py", *toy.argv(tmp_path / "run", "--device", "cpu"))
    assert done.returncode == 2
    assert done.stderr.count("error: ") == 1 and "images/l1.jpg" in done.stderr


def test_global_batch_that_cannot_be_divided(toy, tmp_path):
    toy.tree["batch_size"] = 3
    toy.write_config()
    done = launch("corrmatch.py", *toy.argv(tmp_path / "run", "--device", "cpu"))
    assert done.returncode == 2
    assert "batch_size: a global batch of 3" in done.stderr and "2 processes" in done.stderr
