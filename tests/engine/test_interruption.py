"""Stops, restarts and damage: a run saves, resumes and reports."""

import copy
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from PIL import ImageFile

import engine.trainer
from engine.nonfinite import NonfiniteMonitor
from engine.run_dir import RunDir
from fixmatch import FixMatch
from supervised import SupOnly
from tests.conftest import REPOSITORY, json_lines, saved
from tests.forked import FORKED, launcher, spread
from tests.runs import after_steps, assert_equal, first_steps, latest, poisoned, stopped
from tests.scripts import until_there
from util.errors import UserError
from util.interrupt import EXIT_CODE, SIGNALS


def records(run):
    return json_lines(run / "metrics.jsonl")


@pytest.fixture
def saves(monkeypatch):
    """Collect copies of the progress, and whether the weights are finite, of each checkpoint."""
    found, save = [], RunDir.save

    def spying(self, state):
        is_finite = all(value.isfinite().all() for value in state["method"].values())
        found.append((state["epoch"], state["done"], is_finite))
        save(self, state)

    monkeypatch.setattr(RunDir, "save", spying)
    return found


@pytest.fixture
def signalled(train, monkeypatch):
    """Train until the process sends itself a signal after a step of the run, and so stops."""

    def run(kind, argv, step, number=signal.SIGTERM):
        with monkeypatch.context() as patch:
            after_steps(patch, lambda _, __, at: at == step and os.kill(os.getpid(), number))
            assert stopped(train, kind, argv) == EXIT_CODE == 75

    return run


def test_a_signal_saves_inside_the_epoch_and_the_run_ends_as_if_never_stopped(
    three_epochs, train, signalled, tmp_path
):
    train(FixMatch, three_epochs.argv(tmp_path / "whole"))
    handlers = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]
    for step, number, place in (
        (1, signal.SIGTERM, (0, 2)),  # inside an epoch
        (4, signal.SIGUSR1, (0, 5)),  # at its last step
        (8, signal.SIGINT, (1, 4)),  # inside the next one
    ):
        signalled(FixMatch, three_epochs.argv(tmp_path / "parts"), step, number)
        state = latest(tmp_path / "parts")
        assert (state["epoch"], state["done"]) == place
    train(FixMatch, three_epochs.argv(tmp_path / "parts"))
    assert_equal(latest(tmp_path / "whole"), latest(tmp_path / "parts"))
    assert_equal(records(tmp_path / "whole"), records(tmp_path / "parts"))
    assert first_steps(tmp_path / "parts") == [0, 2, 5, 9]
    assert handlers == [
        signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    ]


@pytest.mark.skipif(signal.SIGHUP not in SIGNALS, reason="the tests run under nohup")
def test_a_closed_terminal_saves(three_epochs, signalled, tmp_path):
    signalled(SupOnly, three_epochs.argv(tmp_path / "run"), 1, signal.SIGHUP)
    assert latest(tmp_path / "run")["done"] == 2


def test_a_signal_while_an_image_is_read_saves(three_epochs, train, tmp_path, monkeypatch):
    """Without data workers; readers take any `Exception` for a damaged file."""
    read = engine.trainer.make_views  # called between batches: counts the steps
    steps = []
    monkeypatch.setattr(engine.trainer, "make_views", lambda *args: steps.append(1) or read(*args))
    load = ImageFile.ImageFile.load

    def signalling(self):
        if len(steps) == 3:
            steps.append(1)
            os.kill(os.getpid(), signal.SIGTERM)
        return load(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", signalling)
    settings = ["--set", "data.workers=0", "data.cache_mb=0"]
    assert stopped(train, SupOnly, three_epochs.argv(tmp_path / "run", *settings)) == EXIT_CODE
    assert (latest(tmp_path / "run")["epoch"], latest(tmp_path / "run")["done"]) == (0, 3)


def test_a_shorter_epoch_ends_where_it_was_left(toy, train, signalled, tmp_path):
    run = tmp_path / "run"
    signalled(SupOnly, toy.argv(run, "--set", "epoch_length=6"), 9)
    assert (latest(run)["epoch"], latest(run)["done"]) == (1, 4)
    train(SupOnly, toy.argv(run, "--force", "--set", "epoch_length=3", "epochs=3"))
    assert [record["steps"] for record in records(run)] == [6, 6, 9]
    assert all(record.get("step_seconds", 1) > 0 for record in records(run))


def test_repeated_signals_to_all_processes_save(three_epochs, tmp_path):
    """The training stops once, and no data worker ends before it."""
    run = tmp_path / "run"
    settings = ["--set", "data.workers=2", "epoch_length=4000", "save_every=1"]
    command = [sys.executable, "supervised.py", *three_epochs.argv(run, *settings)]
    process = subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True)
    until_there(run / "latest.pth")
    for _ in range(2):
        os.killpg(process.pid, signal.SIGTERM)
        time.sleep(0.2)
    assert process.wait(60) == EXIT_CODE
    assert latest(run)["done"] > 0


def test_a_full_disk_below_the_output_does_not_end_a_run(
    three_epochs, train, tmp_path, monkeypatch
):
    def fill(*_):
        if sys.stdout.name != os.devnull:
            monkeypatch.setattr(sys, "stdout", open("/dev/full", "w"))

    after_steps(monkeypatch, fill)
    train(SupOnly, three_epochs.argv(tmp_path / "run"))
    assert latest(tmp_path / "run")["epoch"] == 3
    log = (tmp_path / "run/log.txt").read_text()
    assert "(No space left on device); only log.txt continues" in log and "epoch 3/3" in log


def test_the_same_command_continues_a_run_from_another_checkpoint(
    three_epochs, train, signalled, tmp_path
):
    train(SupOnly, three_epochs.argv(tmp_path / "other", "--set", "epochs=1"))
    argv = three_epochs.argv(
        tmp_path / "run", "--resume", str(tmp_path / "other/latest.pth"), "--force"
    )
    signalled(SupOnly, argv, 6)
    train(SupOnly, argv)
    assert first_steps(tmp_path / "run") == [5, 7]


def test_stopped_before_a_validation(three_epochs, train, signalled, tmp_path):
    """Save the last step's learning rate in a checkpoint that no new step precedes."""
    three_epochs.change(epochs=1)
    train(SupOnly, three_epochs.argv(tmp_path / "whole"))
    signalled(SupOnly, three_epochs.argv(tmp_path / "parts"), 4)
    train(SupOnly, three_epochs.argv(tmp_path / "parts"))
    assert_equal(latest(tmp_path / "whole"), latest(tmp_path / "parts"))
    assert first_steps(tmp_path / "parts") == [0, 5]


@pytest.mark.parametrize("setting", ["save_every=2", "save_minutes=0.00001"])
def test_checkpoints_inside_an_epoch(setting, three_epochs, train, tmp_path, saves):
    train(SupOnly, three_epochs.argv(tmp_path / "run", "--set", setting, "epochs=1"))
    every = (2, 4) if setting.startswith("save_every") else (1, 2, 3, 4, 5)
    assert [at for *at, _ in saves] == [*([0, done] for done in every), [1, 0]]


def test_a_resumed_run_saves_at_the_same_steps(three_epochs, train, signalled, tmp_path, saves):
    argv = three_epochs.argv(tmp_path / "run", "--set", "save_every=2", "epochs=1")
    signalled(SupOnly, argv, 1)
    saves.clear()
    train(SupOnly, argv)
    assert [done for _, done, _ in saves] == [4, 0]


def test_no_checkpoint_holds_what_a_bad_batch_left(
    three_epochs, train, tmp_path, monkeypatch, saves
):
    """A due checkpoint waits while steps are skipped, and later holds no statistics of them: two of
    diverged weights would else replace all that are good."""
    poisoned(monkeypatch, {1, 2})
    train(SupOnly, three_epochs.argv(tmp_path / "run", "--set", "save_every=1", "epochs=1"))
    assert [at for _, *at in saves] == [[done, True] for done in (1, 4, 5, 0)]


def test_a_signal_before_the_first_step(three_epochs, train, tmp_path, monkeypatch):
    for number in (signal.SIGTERM, signal.SIGUSR1):
        stop = lambda *_, number=number: os.kill(os.getpid(), number)  # noqa: E731
        monkeypatch.setattr("engine.command.network_from_config", stop)
        assert stopped(train, SupOnly, three_epochs.argv(tmp_path / "run")) == EXIT_CODE
        assert not (tmp_path / "run/latest.pth").exists()


def test_a_checkpoint_holds_the_state_of_its_moment(tmp_path):
    """Training may change the state during the write; the best checkpoint is linked afterwards."""
    folder, weights = RunDir(tmp_path), torch.zeros(3)
    state = {"method": {"w": weights}, "best": {"model": {"epoch": 1}}, "epoch": 1, "done": 0}
    state["history"] = [{"epoch": 1}]
    written = threading.Event()
    folder._thread.submit(written.wait)  # a slow disk
    expected = copy.deepcopy(state)
    folder.save(state)
    weights += 1
    state["best"]["model"]["epoch"] = 2
    state["history"].append({"epoch": 2})
    assert not folder.latest.exists()
    written.set()
    folder.close()
    assert_equal(expected, latest(tmp_path))
    assert_equal(expected, saved(tmp_path / "best.pth"))
    assert records(tmp_path) == [{"epoch": 1}]


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    three_epochs, train, training_error, tmp_path, capsys
):
    run = tmp_path / "run"
    three_epochs.change(epoch_length=1)
    train(SupOnly, three_epochs.argv(run))
    whole, state = (run / "latest.pth").read_bytes(), latest(run)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 16
    for damaged in (b"", bytes(flipped)):
        (run / "latest.pth").write_bytes(damaged)
        train(SupOnly, three_epochs.argv(run))
        out = capsys.readouterr().out
        assert "latest.pth" in out and "continuing from the one before, " in out
        assert (run / "damaged.pth").read_bytes() == damaged
        assert_equal(state, latest(run))  # after the last of three epochs, run again
    (run / "previous.pth").write_bytes(b"x")
    (run / "latest.pth").write_bytes(b"x")
    assert "previous.pth" in training_error(SupOnly, three_epochs.argv(run))


def test_a_folder_that_another_run_took_is_left_to_it(tmp_path):
    first = RunDir(tmp_path / "run")
    first.lock()
    shutil.rmtree(first.path)
    RunDir(first.path).lock()
    first.save({})
    with pytest.raises(UserError, match="another run took this folder"):
        first.wait_for_writes()
    assert not first.latest.exists()


def test_a_folder_that_another_machine_took_is_left_to_it(tmp_path):
    """Both hold the lock where the locks of a file system are each machine's own."""
    first = RunDir(tmp_path)
    first.lock()
    (tmp_path / "run.lock").write_text("process 1 on another machine")
    first.save({})
    with pytest.raises(UserError, match="another run took this folder"):
        first.wait_for_writes()
    assert not first.latest.exists()


def hold_lock(path, locked):
    folder = RunDir(path)
    folder.lock()
    locked.set()
    time.sleep(60)


def test_two_runs_in_one_folder(tmp_path):
    locked = FORKED.Event()
    first = FORKED.Process(target=hold_lock, args=(tmp_path, locked))
    first.start()
    assert locked.wait(60)
    with pytest.raises(UserError, match=f"in use by process {first.pid} on "):
        RunDir(tmp_path).lock()
    first.kill()
    first.join()
    after = RunDir(tmp_path)
    after.lock()


def test_the_monitor_saves_the_batch_that_the_step_saw(three_epochs, train, tmp_path, monkeypatch):
    seen = {}
    after_steps(monkeypatch, lambda _, raw, number: seen.update({number: raw}))
    noted = NonfiniteMonitor.add
    monkeypatch.setattr(
        NonfiniteMonitor, "add",
        lambda self, number, scalars: noted(
            self, number, {**scalars, "x": scalars["x"] * (float("nan") if number == 7 else 1)}
        ),
    )  # fmt: skip
    train(FixMatch, three_epochs.argv(tmp_path))
    assert_equal(saved(tmp_path / "nonfinite_step7_rank0.pth"), seen[7])


def test_float16_start_logs_no_warning(three_epochs, train, tmp_path, capsys):
    train(SupOnly, three_epochs.argv(tmp_path, "--set", "precision=float16", "epochs=1"))
    assert not list(tmp_path.glob("nonfinite*"))
    assert latest(tmp_path)["scaler"]["scale"] >= 1


def test_deterministic_runs(three_epochs, train, tmp_path):
    for run in "ab":
        train(
            FixMatch, three_epochs.argv(tmp_path / run, "--set", "deterministic=true", "epochs=1")
        )
    assert torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    assert_equal(latest(tmp_path / "a"), latest(tmp_path / "b"))


def test_signals_reach_all_processes_of_a_launch(three_epochs, tmp_path):
    """The launcher forwards the signal (torchrun would send SIGTERM and wait for 30 seconds); all
    processes stop after the same step, and the launcher exits with code 75."""
    three_epochs.change(epochs=1, epoch_length=4000, batch_size=4, save_every=20)
    launch = launcher("supervised.py", *three_epochs.argv(tmp_path / "run", "--device", "cpu"))
    until_there(tmp_path / "run/latest.pth")
    os.kill(launch.process.pid, signal.SIGUSR1)
    done = launch.end(60)
    assert done.returncode == EXIT_CODE, done.stderr
    state = latest(tmp_path / "run")
    assert 0 < state["done"] < 4000 and state["done"] % 20 == 0
    assert "stopped by SIGUSR1" in done.stdout
    assert f"step {state['done']}; the same command continues" in done.stdout


@pytest.mark.parametrize(("slow", "done"), [(0, 7), (100, 20)])
def test_several_processes_stop_after_a_slow_step(slow, done, three_epochs, tmp_path):
    """They decide together: after the step if steps are slow, else every 20 steps."""
    script = tmp_path / "program.py"
    script.write_text(f"""
import os, signal
import engine.trainer
from engine.command import main
from supervised import SupOnly

def stopping(self, raw, step, optimize=engine.trainer.Trainer.optimize):
    if step == 6 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGUSR1)
    return optimize(self, raw, step)

engine.save_clock.SLOW_STEP_SECONDS, engine.trainer.Trainer.optimize = {slow}, stopping
main(SupOnly)
""")
    three_epochs.change(epochs=1, epoch_length=40, batch_size=4)
    ended = spread(script, *three_epochs.argv(tmp_path / "run", "--device", "cpu"))
    assert ended.returncode == EXIT_CODE, ended.stderr
    assert latest(tmp_path / "run")["done"] == done


def test_no_process_leaves_before_the_checkpoint_is_written(three_epochs, tmp_path):
    """A launcher that sees one process end may kill the others."""
    script, run = tmp_path / "program.py", tmp_path / "run"
    script.write_text(f"""
import os, signal, time
from pathlib import Path
import engine.run_dir
from engine.command import main
from engine.trainer import Trainer
from supervised import SupOnly

def stopping(self, raw, step, optimize=Trainer.optimize):
    scalars = optimize(self, raw, step)
    if os.environ["RANK"] == "0":
        os.kill(os.getpid(), signal.SIGTERM)
    return scalars

def slow(*arguments, write=engine.run_dir.save_atomically):
    time.sleep(2)
    write(*arguments)

Trainer.optimize, engine.run_dir.save_atomically = stopping, slow
try:
    main(SupOnly)
finally:
    print("there is a checkpoint:", Path({str(run / "latest.pth")!r}).exists())
""")
    done = spread(script, *three_epochs.change(batch_size=4).argv(run, "--device", "cpu"))
    assert done.stdout.count("there is a checkpoint: True") == 2, done
