"""An interrupted run, resumed by the same command, equals one that was never interrupted."""

import json

import pytest
import torch

from corrmatch import CorrMatch
from engine.run_folder import RunFolder
from supervised import SupOnly
from tests.conftest import METHODS
from tests.prototypes import Prototypes

MEASURED = {"seconds", "step_seconds", "validation_seconds", "peak_memory"}


class Killed(Exception):
    pass


def assert_equal(a, b, where="state"):
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            if key not in MEASURED:
                assert_equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def first_steps(run):
    """The step that each start of a run began with."""
    lines = (run / "starts.jsonl").read_text().splitlines()
    return [json.loads(line)["first_step"] for line in lines]


@pytest.mark.parametrize("kind", [*METHODS.values(), Prototypes], ids=[*METHODS, "prototypes"])
def test_resume_is_bit_exact(kind, toy, train, tmp_path, monkeypatch):
    toy.tree["epochs"] = 3
    toy.write_config()
    train(kind, toy.argv(tmp_path / "whole"))

    save = RunFolder.save

    def save_then_die(self, state, history):
        save(self, state, history)
        raise Killed

    for _ in range(2):  # after the first epoch, and again after the second
        with monkeypatch.context() as patch:
            patch.setattr(RunFolder, "save", save_then_die)
            with pytest.raises(Killed):
                train(kind, toy.argv(tmp_path / "parts"))
    train(kind, toy.argv(tmp_path / "parts"))

    whole, parts = (
        torch.load(tmp_path / run / "latest.pth", weights_only=True) for run in ("whole", "parts")
    )
    assert whole["epoch"] == 3 and [step > 0 for step in first_steps(tmp_path / "parts")] == [
        False, True, True
    ]  # fmt: skip
    assert_equal(whole, parts)
    assert_equal(*(torch.load(tmp_path / r / "best.pth", weights_only=True)["method"]
                   for r in ("whole", "parts")))  # fmt: skip
    records = [
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("whole", "parts")
    ]
    assert_equal(*records)


def test_settings_of_the_optimizer_are_those_of_the_config(toy, train, tmp_path):
    train(SupOnly, toy.argv(tmp_path / "run", "--set", "epochs=1"))
    train(SupOnly, toy.argv(tmp_path / "run", "--force", "--set", "optimizer.lr=0.5",
                            "optimizer.momentum=0.5"))  # fmt: skip
    state = torch.load(tmp_path / "run/latest.pth", weights_only=True)
    for group in state["optimizer"]["param_groups"]:
        assert group["base_lr"] == 0.5 and group["momentum"] == 0.5


def test_finished_run_is_left_as_it_is(toy, train, tmp_path):
    train(SupOnly, toy.argv(tmp_path / "run"))
    before = (tmp_path / "run/latest.pth").read_bytes()
    train(SupOnly, toy.argv(tmp_path / "run"))
    assert (tmp_path / "run/latest.pth").read_bytes() == before


def test_what_changes_no_result_may_change(toy, train, tmp_path):
    train(SupOnly, toy.argv(tmp_path / "run"))
    train(SupOnly, toy.argv(tmp_path / "run", "--set", "data.workers=1", "data.cache_mb=0"))


def test_worker_count_changes_nothing(toy, train, tmp_path):
    train(CorrMatch, toy.argv(tmp_path / "alone"))
    train(CorrMatch, toy.argv(tmp_path / "workers", "--set", "data.workers=2"))
    alone, workers = (
        torch.load(tmp_path / run / "latest.pth", weights_only=True)["method"]
        for run in ("alone", "workers")
    )
    assert_equal(alone, workers)


def test_a_run_of_an_older_version_goes_on(toy, train, tmp_path):
    """Its config lacks keys that came later, and its best score has another name."""
    train(SupOnly, toy.argv(tmp_path))
    latest = tmp_path / "latest.pth"
    state = torch.load(latest, weights_only=True)
    state["epoch"], state["history"] = 1, state["history"][:1]
    state["best"] = {"model": {"miou": 99.0, "epoch": 1}}
    del state["config"]["log"], state["config"]["evaluation"]["select"]
    torch.save(state, latest)
    train(SupOnly, toy.argv(tmp_path))
    state = torch.load(latest, weights_only=True)
    assert state["epoch"] == 2 and state["best"] == {"model": {"score": 99.0, "epoch": 1}}
