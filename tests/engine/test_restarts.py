"""Restarts of launched processes after one is killed, and reasons for their end."""

import os
import signal
import subprocess

import pytest

from supervised import SupOnly
from tests.conftest import REPOSITORY, json_lines, run_python
from tests.forked import launcher, machines, spread
from tests.robustness.fuzzing.kill import assert_same
from tests.runs import first_steps
from tests.scripts import environment, until_there
from tools.launch import __main__ as launch
from tools.launch.processes import first_to_fail, is_killed
from util.interrupt import EXIT_CODE
from util.rendezvous import RESTARTS

KILLED = "process 1 was killed by SIGKILL (out of memory?)"


DYING = """
import io, itertools, os, signal, torch
from engine import validation
from engine.command import main
from supervised import SupOnly

rank, start, calls = os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"], itertools.count()

def evaluate(*arguments, original=validation.evaluate_network, **named):
    if (rank, start, next(calls)) == ("1", "0", 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **named)

def save(state, file, original=torch.save):
    if (rank, start) == ("0", "1"):
        original(state, whole := io.BytesIO())
        file.write(whole.getvalue()[:5000])
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    original(state, file)

validation.evaluate_network, torch.save = evaluate, save
main(SupOnly)
"""
"""Process 1 dies in the second validation; after a restart, process 0 while it saves."""


def test_a_run_whose_processes_are_killed_ends_as_one_that_is_not(short, tmp_path, monkeypatch):
    whole, run, script = tmp_path / "whole", tmp_path / "run", tmp_path / "program.py"
    done = spread("supervised.py", *short.argv(whole, "--device", "cpu"))
    assert done.returncode == 0, done.stderr
    script.write_text(DYING)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    arguments = short.argv(run, "--device", "cpu", "--resume", "never")
    done = launcher("--max_restarts", 2, script, *arguments).end()
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "was killed" in line]
    assert told == [
        f"process {rank} was killed by SIGKILL (out of memory?); all restart from the last "
        f"checkpoint (restart {number} of 2)"
        for number, rank in enumerate([1, 0], start=1)
    ]
    assert first_steps(run) == [0, 3, 3]
    assert_same(whole, run)


DEATH = "if rank == {}: os.kill(os.getpid(), signal.{})"


def test_more_deaths_than_restarts(tmp_path):
    ((code, starts, output),) = machines(tmp_path, DEATH.format(1, "SIGKILL"), restarts=1)
    assert (code, starts) == (128 + signal.SIGKILL, 2)
    _, last = output.splitlines()
    assert last == f"error: {KILLED}; the same command resumes from the last checkpoint"


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (f"if rank == 1: sys.exit({EXIT_CODE})", EXIT_CODE),
        (DEATH.format(1, "SIGTERM"), 128 + signal.SIGTERM),
    ],
)
def test_a_program_that_was_not_killed_is_not_restarted(program, expected, tmp_path):
    ((code, starts, output),) = machines(tmp_path, program, 3)
    assert (code, starts) == (expected, 1), output


def test_machines_restart_together(tmp_path):
    program = f"""
if start: sys.exit(0)
{DEATH.format(3, "SIGKILL")}
assert rank != 1
"""
    ends = machines(tmp_path, program, 3, count=2)
    assert [(code, starts) for code, starts, _ in ends] == [(0, 2), (0, 2)], ends
    assert "process 3 was killed by SIGKILL" in ends[0][2]


def test_a_launch_that_is_asked_to_stop_while_it_begins(run, monkeypatch):
    def stop(_):
        os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr("tools.launch.processes.Launch", stop)
    assert run(launch, "supervised.py") == (EXIT_CODE, "", "")


IMPORT_THAT_CATCHES = """
import os, runpy, signal, sys
class Catching:
    def find_spec(self, name, *_):
        if name == "tools.launch.processes":
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except SystemExit:
                pass
sys.meta_path.insert(0, Catching())
sys.argv = ["launch", "--standalone", "supervised.py", "--help"]
runpy.run_module("tools.launch", run_name="__main__")
"""


def test_no_import_of_the_launcher_catches_a_signal():
    assert run_python("-c", IMPORT_THAT_CATCHES).code == EXIT_CODE


def test_a_run_that_was_asked_to_stop_is_not_restarted(tmp_path):
    """End the launch although a process is killed after the request to stop."""
    program = f"""
if rank == 1:
    time.sleep(2)  # the launcher may still be busy with the start
    os.kill(os.getppid(), signal.SIGUSR1)
{DEATH.format(1, "SIGKILL")}
"""
    ((code, starts, _),) = machines(tmp_path, program, 3)
    assert code > 128 and starts == 1


@pytest.mark.parametrize(
    ("codes", "first", "killed"),
    [
        ({0: 1, 1: -signal.SIGKILL}, 1, True),
        ({0: -signal.SIGABRT, 1: 1}, 1, False),
        ({0: -signal.SIGABRT, 1: -signal.SIGTERM}, 0, True),
        ({0: -signal.SIGKILL, 1: 2}, 1, False),
        ({0: -signal.SIGTERM, 1: -signal.SIGSEGV}, 1, True),
        ({0: 1, 1: EXIT_CODE}, 1, False),
    ],
)
def test_first_failing_rank_explains_the_exit(codes, first, killed):
    assert first_to_fail(codes) == first
    assert is_killed(codes[first]) == killed


def test_one_process_alone_is_restarted_too(variables):
    run = variables["save_path"]
    process = subprocess.Popen(
        ["sh", "tools/train.sh", "0", "1", "--resume", "never", "--set", "epochs=1",
         "epoch_length=40", "save_every=1"],
        cwd=REPOSITORY, env=environment(**variables),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    until_there(run / "latest.pth")
    _, number, *_ = (run / "run.lock").read_text().split()
    os.kill(int(number), signal.SIGKILL)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "process 0 was killed by SIGKILL" in output and "(restart 1 of 3)" in output
    first, second = json_lines(run / "starts.jsonl")
    assert (first["first_step"], first["command"]) == (0, second["command"])
    assert second["first_step"] > 0


@pytest.mark.parametrize("variable", [RESTARTS, "SLURM_RESTART_COUNT"])
def test_a_restart_goes_on_from_its_own_checkpoint(variable, short, train, tmp_path, monkeypatch):
    """Ignore the checkpoint that the run was started from, even without a later checkpoint."""
    other, run = tmp_path / "other/latest.pth", tmp_path / "run"
    train(SupOnly, short.argv(other.parent, "--set", "epochs=1"))
    begun = short.argv(run, "--resume", str(other), "--force")

    def die(*_, **__):
        raise KeyboardInterrupt

    for place in ("engine.trainer.Trainer.save", "engine.trainer.Trainer.train_epoch"):
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(place, die)
            train(SupOnly, begun)
        monkeypatch.setenv(variable, "1")
    other.unlink()
    train(SupOnly, begun)
    assert first_steps(run) == [3, 3, 3]
    train(SupOnly, short.argv(tmp_path / "new", "--resume", "never"))
    with pytest.raises(SystemExit):  # of another command
        train(SupOnly, short.argv(run, "--resume", "never"))
