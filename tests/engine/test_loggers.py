"""log.trackers: TensorBoard by default, Weights & Biases on request."""

import sys
import threading
import types

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.loggers import TensorBoard
from supervised import SupOnly
from tests.conftest import json_lines


class FakeRun:
    def __init__(self, settings):
        self.settings, self.logged, self.ended = settings, [], False

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.ended = True


@pytest.fixture
def runs(monkeypatch):
    """Runs that a stand-in for wandb started."""
    started = []

    def init(**settings):
        started.append(FakeRun(settings))
        return started[-1]

    fake = types.SimpleNamespace(init=init, Image=lambda picture: picture.size)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return started


WANDB = ("--set", "log.trackers=[wandb]")


def test_wandb_gets_what_tensorboard_gets(toy, train, runs, tmp_path):
    train(SupOnly, toy.argv(tmp_path / "run", *WANDB, "log.pictures=1"))
    assert not (tmp_path / "run/tensorboard").exists()
    (run,) = runs
    history = json_lines(tmp_path / "run/metrics.jsonl")
    scores = {step: v["val/model/mIoU"] for step, v in run.logged if "val/model/mIoU" in v}
    assert scores == {e["steps"]: e["scores"]["model"]["miou"] for e in history}
    assert any("train/loss" in values and "train/lr" in values for _, values in run.logged)
    assert [step for step, v in run.logged if "pictures/val_01" in v] == [*scores]
    steps = [step for step, _ in run.logged]
    assert run.ended and steps == sorted(steps)  # as wandb demands
    assert run.settings["project"] == "toy" and run.settings["config"]["crop_size"] == 33


def test_tensorboard_keeps_the_validation_before_a_resume(toy, train, tmp_path):
    for epochs in (1, 2):
        train(SupOnly, toy.argv(tmp_path / "run", "--force", "--set", f"epochs={epochs}"))
    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    steps = [record["steps"] for record in json_lines(tmp_path / "run/metrics.jsonl")]
    assert [event.step for event in events.Scalars("val/model/mIoU")] == steps


def test_a_resumed_run_is_the_same_run_of_wandb(toy, train, runs, tmp_path):
    for epochs, trackers in enumerate(("[wandb]", "[tensorboard,wandb]"), start=1):  # may change
        settings = ("--set", f"epochs={epochs}", f"log.trackers={trackers}")
        train(SupOnly, toy.argv(tmp_path / "run", "--force", *settings))
    first, second = (run.settings for run in runs)
    assert first["id"] == second["id"] and second["resume"] == "allow"
    assert (tmp_path / "run/tensorboard").is_dir()


def test_the_real_wandb_offline(toy, train, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(SupOnly, toy.argv(tmp_path / "run", *WANDB, "epochs=1", "log.pictures=1"))
    assert list((tmp_path / "run/wandb").glob("offline-run-*/files/media/images/pictures/*.png"))


def test_wandb_that_is_missing_or_cannot_start(toy, training_error, tmp_path, monkeypatch):
    def init(**_):
        raise RuntimeError("no API key\nconfigured")

    for module, part in ((None, "requirements-extra.txt"), (init, "WANDB_MODE=offline")):
        fake = module and types.SimpleNamespace(init=init)
        monkeypatch.setitem(sys.modules, "wandb", fake)
        assert part in training_error(SupOnly, toy.argv(tmp_path / "run", *WANDB))
        assert (tmp_path / "run").exists() == (module is init)  # nothing starts without wandb


def test_a_failure_of_the_writing_thread_is_raised_by_the_next_call_only(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    board = TensorBoard(None, tmp_path, 0)
    writer = board._writer.file_writer.event_writer._async_writer._worker
    for thread in (writer, threading.current_thread()):
        threading.excepthook(threading.ExceptHookArgs((OSError, OSError(28), None, thread)))
        assert ("OSError" in capsys.readouterr().err) == (thread is not writer)
    board.close()
