"""Data workers: open files, hangs, deaths."""

import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import threading
import time

import pytest

from dataset import loaders
from dataset.datasets import TrainingSet
from supervised import SupOnly
from tests.conftest import Done, run_python, saved
from tests.scripts import until_there
from unimatch_v2 import UniMatchV2
from util import interrupt
from util.errors import UserError
from util.interrupt import EXIT_CODE
from util.workers import OPEN_FILES, allow_open_files, worker_failure

INFINITE = resource.RLIM_INFINITY


@pytest.mark.parametrize("soft, hard, raised", [
    (256, 512, 512), (256, INFINITE, OPEN_FILES), (2 * OPEN_FILES, INFINITE, 2 * OPEN_FILES),
    (INFINITE, INFINITE, INFINITE),
])  # fmt: skip
def test_a_low_soft_limit_of_open_files_is_raised(soft, hard, raised, monkeypatch):
    limits = [soft, hard]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.__setitem__(slice(2), new))
    allow_open_files()
    assert limits == [raised, hard]


@pytest.mark.parametrize("error", [
    OSError(24, "Too many open files"), RuntimeError("received 0 items of ancdata"),
])  # fmt: skip
def test_too_few_open_files_are_reported(error):
    assert "ulimit -n: too few open files" in str(worker_failure(error))


@pytest.mark.parametrize("text", [
    "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (...):\nRuntimeError: "
    "unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)\n",
    "DataLoader worker (pid 1) is killed by signal: Bus error. It is possible that dataloader's "
    "workers are out of shared memory. Please try to raise your shared memory limit.",
])  # fmt: skip
def test_too_little_shared_memory_is_reported(text):
    assert "docker run --shm-size=8g" in str(worker_failure(RuntimeError(text)))


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python then uses /tmp")
def test_a_temporary_folder_with_a_long_path(toy, training_error, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/" + 75 * "x")
    error = training_error(SupOnly, toy.argv(tmp_path / "run", "--set", "data.workers=1"))
    assert "too long for the sockets of data workers; expected at most 75 bytes, found 76" in error


def test_a_file_that_breaks_during_training(toy, training_error, tmp_path):
    (toy.root / "images/u4.jpg").write_bytes(b"\xff\xd8 no jpeg")
    sets = ["data.check_samples=0", "data.workers=1", "batch_size=4", "epochs=9"]
    error = training_error(UniMatchV2, toy.argv(tmp_path / "run", "--set", *sets))
    assert "images/u4.jpg: not a readable image" in error


@pytest.fixture
def hanging(three_epochs, tmp_path, train, monkeypatch, capsys):
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
            train(SupOnly, three_epochs.argv(tmp_path / "run", "--set", "data.workers=2"))
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
    assert "stopped by SIGTERM after epoch 1; the same command continues the run" in out
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
        assert (
            list(stop.with_stop_timeout(batches(slow=False))) == [0, 1, 2]
            and stop.signal_name == "SIGTERM"
        )
    with (
        interrupt.stop_requests() as stop,
        pytest.raises(UserError, match="within 0.3 s after SIG"),
    ):
        list(stop.with_stop_timeout(batches(slow=True)))
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_windows_is_refused_with_one_line():
    program = "import sys; sys.platform = 'win32'; import util"
    assert run_python("-c", program).mistake().startswith("error: Windows: ")
