"""Data workers: open files, hangs, deaths."""

import multiprocessing
import os
import resource
import signal
import threading
import time

import pytest

from dataset import loaders
from dataset.cache import CacheBytes
from dataset.datasets import TrainingSet
from dataset.loaders import LoaderProcess, map_tensors, tensors_per_batch, training_loader
from dataset.validation import read_splits
from supervised import SupOnly
from tests.conftest import Done, run_python, saved
from tests.tools.test_slurm import until_there
from unimatch_v2 import UniMatchV2
from util import interrupt
from util.config.loading import load_config
from util.errors import UserError
from util.interrupt import EXIT_CODE
from util.workers import OPEN_FILES, PIPES, allow_open_files

NEEDED = OPEN_FILES + 8 + 2 * (PIPES + 2 * 8)
"""Open files of two data workers, with batches of at most 8 tensors (SupOnly)."""


INFINITE = resource.RLIM_INFINITY


@pytest.fixture
def limits(monkeypatch):
    """Replace the system's soft and hard limits on open files by a list."""
    found = [NEEDED - 1, NEEDED - 1]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(found))
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: found.__setitem__(slice(2), new))
    return found


def test_too_few_open_files_are_refused_before_training(toy, refused, tmp_path, limits):
    error = refused(SupOnly, toy.argv(tmp_path / "run", "--set", "data.workers=2"))
    assert f"ulimit -n: found a limit of {NEEDED - 1} open files, expected {NEEDED}" in error
    assert f"Fix: ulimit -n {NEEDED}, or --set data.workers=1" in error
    assert limits == [NEEDED - 1] * 2


@pytest.mark.parametrize("soft, hard, raised", [
    (NEEDED - 1, NEEDED, NEEDED), (NEEDED - 1, INFINITE, NEEDED),
    (NEEDED + 1, NEEDED + 1, NEEDED + 1), (INFINITE, INFINITE, INFINITE),
])  # fmt: skip
def test_a_low_soft_limit_is_raised(soft, hard, raised, limits):
    limits[:] = soft, hard
    allow_open_files(0, 8)
    assert limits == [soft, hard]
    allow_open_files(2, 8)
    assert limits == [raised, hard]


@pytest.mark.parametrize("partner", ["other", "batch"])
@pytest.mark.parametrize("kind", [SupOnly, UniMatchV2])
def test_the_tensors_of_a_batch_are_counted(kind, partner, toy):
    config = load_config(toy.config, [f"cutmix_partner={partner}"])
    lists = read_splits(config.data, kind.unlabeled)
    process = LoaderProcess(rank=0, world=1, workers=0, cuda=False)
    loader = training_loader(config, lists, CacheBytes(0, 0, 0), 2, 2, kind.strong_views, process)
    counted = []
    map_tensors(counted.append, next(iter(loader)))
    bound = tensors_per_batch(kind.strong_views * kind.unlabeled)
    assert len(counted) == bound if kind.unlabeled and partner == "other" else len(counted) <= bound


def test_a_file_that_breaks_during_training(toy, refused, tmp_path):
    (toy.root / "images/u4.jpg").write_bytes(b"\xff\xd8 no jpeg")
    sets = ["data.check_samples=0", "data.workers=1", "batch_size=4", "epochs=9"]
    error = refused(UniMatchV2, toy.argv(tmp_path / "run", "--set", *sets))
    assert "images/u4.jpg: not a readable image" in error


@pytest.fixture
def hanging(long, tmp_path, train, monkeypatch, capsys):
    """Train with data workers that hang in the second epoch; return exit code and output."""
    marker, sample = tmp_path / "marker", TrainingSet.__getitem__

    def hang(self, key):
        if key[0] == 1:
            marker.touch()
            time.sleep(100)
        return sample(self, key)

    def start(patience, when_it_hangs=lambda: None):
        def watch():
            until_there(marker)
            when_it_hangs()

        monkeypatch.setattr(TrainingSet, "__getitem__", hang)
        monkeypatch.setattr(loaders, "BATCH_TIMEOUT", patience)
        watcher = threading.Thread(target=watch)
        watcher.start()
        with pytest.raises(SystemExit) as end:
            train(SupOnly, long.argv(tmp_path / "run", "--set", "data.workers=2"))
        watcher.join()
        return Done(end.value.code, *capsys.readouterr())

    return start


def test_workers_that_hang_end_the_run_with_one_line(hanging):
    err = hanging(1).mistake()
    assert "data.workers: a data worker died or did not answer (DataLoader timed out" in err
    assert not multiprocessing.active_children()


def test_a_run_that_waits_for_workers_can_be_stopped(hanging, tmp_path):
    def stop():
        until_there(tmp_path / "run/latest.pth")
        time.sleep(1)  # until the training waits for a batch
        if multiprocessing.active_children():  # otherwise the signal would end the tests
            os.kill(os.getpid(), signal.SIGTERM)

    code, out, err = hanging(60, stop)
    assert code == EXIT_CODE, err
    assert "stopped by SIGTERM after epoch 1, step 0" in out
    assert saved(tmp_path / "run/latest.pth")["epoch"] == 1
    assert not multiprocessing.active_children()


def test_one_of_several_processes_waits_for_a_while(monkeypatch):
    """After a signal, use batches that arrive in time, and fail when none arrives."""
    monkeypatch.setattr(interrupt, "STOP_TIMEOUT", 0.3)

    def batches(slow):
        yield 0
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        yield 1
        time.sleep(60 if slow else 0.1)
        yield 2

    with interrupt.stop_requests() as stop:
        assert list(stop.limiting(batches(slow=False))) == [0, 1, 2] and stop.by == "SIGTERM"
    with (
        interrupt.stop_requests() as stop,
        pytest.raises(UserError, match="within 0.3 s after SIG"),
    ):
        list(stop.limiting(batches(slow=True)))
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_windows_is_refused_with_one_line():
    program = "import sys; sys.platform = 'win32'; import util"
    assert run_python("-c", program).mistake().startswith("error: Windows: ")
