"""Trainings that stop, and what they leave."""

import pytest
import torch

import engine.trainer
from engine.trainer import Trainer
from tests.conftest import json_lines, saved

MEASURED = {"seconds", "step_seconds", "validation_seconds", "peak_memory"}


def assert_equal(a, b, where="state"):
    """Compare nested values bit by bit, except those that are measured."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() - MEASURED == b.keys() - MEASURED, where
        for key in a.keys() - MEASURED:
            assert_equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def first_steps(run):
    """Return the step at which each start of a run began."""
    return [line["first_step"] for line in json_lines(run / "starts.jsonl")]


def latest(run):
    """Return the last checkpoint of a run."""
    return saved(run / "latest.pth")


def stopped(train, kind, argv):
    """Train until the run stops itself; return the exit code."""
    with pytest.raises(SystemExit) as end:
        train(kind, argv)
    return end.value.code


def after_steps(monkeypatch, do):
    """Call `do(trainer, raw, number)` after each step."""
    step = Trainer.optimize

    def spying(self, raw, number):
        scalars = step(self, raw, number)
        do(self, raw, number)
        return scalars

    monkeypatch.setattr(Trainer, "optimize", spying)


def poisoned(monkeypatch, steps):
    """Put NaN into the images of these steps, as a broken decoder or an overflow would."""
    original, number = Trainer.optimize, []

    def spying(self, raw, current):
        number[:] = [current]
        return original(self, raw, current)

    make = engine.trainer.make_views

    def views(*args):
        batch = make(*args)
        if number[0] in steps:
            batch["labeled"]["image"][0, 0, 0, 0] = float("nan")
        return batch

    monkeypatch.setattr(Trainer, "optimize", spying)
    monkeypatch.setattr(engine.trainer, "make_views", views)
