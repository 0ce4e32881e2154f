"""Several nodes: each rank has its own disk and its own output."""

import shutil
import socket

import pytest
from torch.distributed import TCPStore

from supervised import SupOnly
from tests.conftest import REPOSITORY, json_lines
from tests.forked import launcher, machines, meeting
from tests.scripts import free_port
from tools.launch import __main__ as launch
from util import rendezvous
from util.errors import UserError
from util.interrupt import EXIT_CODE
from util.launcher import launched_world_size
from util.log import code_version


def ends(*commands, **variables):
    """Return exit code and stderr of each node."""
    done = [one.end(200) for one in meeting(*commands, machines=True, **variables)]
    return [(end.returncode, end.stderr) for end in done]


def refused(done, reason):
    """Assert that each node exits with code 2 and one error line containing `reason`."""
    for code, output in done:
        assert code == 2, done
        assert output.count("error: ") == 1 and reason in output and "Traceback" not in output, done
    return True


def supervised(toy, run, *more):
    return ["supervised.py", *toy.argv(run, "--device", "cpu", *more)]


def test_rank_0_decides_what_all_continue_from(short, train, tmp_path):
    """Resume the run on the disk of node 0; the disk of node 1 holds another run."""
    a, b = tmp_path / "a", tmp_path / "b"
    train(SupOnly, short.argv(a / "supervised", "--set", "epochs=1", "batch_size=2"))
    train(SupOnly, short.argv(b / "supervised", "--set", "batch_size=2", "seed=5"))
    more = ["supervised", "--config", short.config, "--device", "cpu", "--force"]
    done = ends(*(["-m", "tests.spying_training", folder, *more] for folder in (a, b)))
    assert [code for code, _ in done] == [0, 0], done
    steps = [
        [(step["step"], step["digest"]) for step in json_lines(folder / f"supervised-{rank}.jsonl")]
        for rank, folder in enumerate((a, b))
    ]
    assert [number for number, _ in steps[0]] == [3, 4, 5] and steps[0] == steps[1]


def test_what_is_sent_arrives_whole(tmp_path):
    script = tmp_path / "program.py"
    script.write_text("""
import torch
from util import distributed

state = {"w": torch.arange(6.).view(2, 3).t(), "n": torch.tensor(3), "none": torch.zeros(0, 2),
         "half": torch.ones(2, dtype=torch.bfloat16), "c": torch.ones(2, dtype=torch.complex64),
         "mask": torch.tensor([True, False]), "history": [{"epoch": 1, "name": "x"}]}
with distributed.session(torch.device("cpu")):
    got = distributed.on_main(lambda: state)
for name, value in state.items():
    same = torch.equal(got[name], value) if isinstance(value, torch.Tensor) else got[name] == value
    assert same, name
""")
    assert ends([script], [script]) == [(0, ""), (0, "")]


def test_machines_with_different_settings_and_split_files(short, tmp_path):
    other, reverse = tmp_path / "labeled.txt", tmp_path / "reverse.txt"
    lines = short.path("labeled").read_text().splitlines(keepends=True)
    other.write_text("".join(lines[:2]))
    reverse.write_text("".join(lines[::-1]))
    root = tmp_path / "root"
    shutil.copytree(short.root, root)
    with (root / "masks/l1.png").open("ab") as file:
        file.write(b"another version")
    for more, reason in (
        (["--set", "log.pictures=1"], "log.pictures (0 -> 1)"),
        (["--labeled-id-path", str(other)], "split files.labeled (3 images, SHA-256 "),
        (["--labeled-id-path", str(reverse)], "order of split files.labeled ("),
        (["--set", f"data.root={root}"], "sizes of files.labeled ("),
        (["--dry-run"], "--dry-run (False -> True)"),
    ):
        commands = [supervised(short, tmp_path / "a"), supervised(short, tmp_path / "b", *more)]
        assert refused(ends(*commands), f"rank 1 differs from rank 0: {reason}")


def test_evaluations_of_different_checkpoints_and_split_files(short, train, tmp_path):
    for name, seed in (("a", "1"), ("b", "2")):
        train(SupOnly, short.argv(tmp_path / name, "--seed", seed, "--set", "epochs=1"))
    first, second = (
        ["evaluate.py", "--checkpoint", tmp_path / name / "latest.pth", "--device", "cpu"]
        for name in "ab"
    )
    (tmp_path / "reverse.txt").write_text(
        "".join(short.path("val").read_text().splitlines(keepends=True)[::-1])
    )
    reverse = [*first, "--set", f"data.val={tmp_path / 'reverse.txt'}"]
    for other, reason in (
        (second, "checkpoint's SHA-256 ("),
        (reverse, "order of the split file ("),
    ):
        assert refused(ends(first, other), f"rank 1 differs from rank 0: {reason}")


@pytest.mark.parametrize(
    "file",
    ["unimatch.py", "engine/trainer.py", "metrics/confusion.py", "dataset/transforms/weak.py"],
)
def test_the_code_has_a_version(file, monkeypatch, tmp_path):
    """Editing a source file changes the version, also without git."""
    for folder in ("util", "dataset", "engine", "metrics"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder)
    monkeypatch.setattr("util.log.__file__", str(tmp_path / "util/log.py"))
    before = code_version()
    (tmp_path / file).write_text("edited")
    assert code_version() != before


@pytest.mark.parametrize("library", ["torch", "timm", "numpy", "PIL"])
def test_the_code_includes_its_libraries_but_not_the_commit(library, monkeypatch):
    before = code_version()
    monkeypatch.setattr("util.log._commit", lambda: "unknown")
    assert code_version() == before
    monkeypatch.setattr(f"{library}.__version__", "0")
    assert code_version() != before


@pytest.mark.parametrize("what", ["config", "image"])
def test_what_machine_1_alone_lacks(what, short, tmp_path):
    """Both nodes print the error of node 1, before they have joined and during training."""
    root = tmp_path / "other"
    shutil.copytree(short.root, root)
    commands = [
        supervised(short, tmp_path / "a"),
        supervised(short, tmp_path / "b", "--set", f"data.root={root}"),
    ]
    if what == "config":
        missing = commands[1][2] = tmp_path / "missing.yaml"
    else:
        missing = root / "images/l"
        for number in range(3):
            (root / f"images/l{number}.jpg").unlink()
    done = ends(*commands)
    assert refused(done, str(missing))
    assert done[0][1].endswith(f"error: rank 1 on {socket.gethostname()}: {done[1][1][7:]}")


def test_a_fault_of_the_program_on_machine_1(tmp_path):
    """Node 1 prints the only traceback; node 0 names node 1."""
    script = tmp_path / "program.py"
    script.write_text("""
import torch
from util import distributed
from util.cli import exit_with_one_line

with distributed.session(torch.device("cpu")), exit_with_one_line():
    if distributed.rank() == 1:
        raise KeyError("x")
    distributed.barrier()
""")
    (code, output), (other, traceback) = ends([script], [script])
    assert (code, other) == (1, 1) and traceback.count("Traceback") == 1
    assert output == f"error: rank 1 on {socket.gethostname()}: KeyError: 'x'\n"


def test_a_machine_whose_ranks_hang_when_another_fails(tmp_path, monkeypatch):
    """Kill ranks that hang, as in an NCCL collective; their launcher prints the reason."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    program = """
from util import rendezvous
if rank == 3:
    reason, code = rendezvous.report_failure("no such file", 2)
    sys.exit(code)
"""
    ends = machines(tmp_path, program, 3, count=2)
    assert [(code, starts) for code, starts, _ in ends] == [(2, 1), (2, 1)], ends
    assert f"error: rank 3 on {socket.gethostname()}: no such file\n" in ends[0][2]


STOPPED = """
import os, signal, torch
from util import distributed
from util.cli import exit_with_one_line

with exit_with_one_line(), distributed.session(torch.device("cpu")), exit_with_one_line():
    if distributed.rank() == 1:
        os.kill(os.getpid(), signal.{})
    distributed.barrier()
"""


@pytest.mark.parametrize("number", ["SIGSTOP", "SIGKILL"])
def test_a_rank_that_does_not_answer(number, tmp_path):
    script = tmp_path / "program.py"
    script.write_text(STOPPED.format(number))
    running = meeting([script], [script], machines=True, TIMEOUT=0.1)
    end = running[0].end(100)
    running[1].end(0)
    assert end.returncode == 1 and end.stderr.count("\n") == 1, end
    assert end.stderr.startswith("error: rank 1: no answer; ")
    assert "the limit is 0.1 minutes (environment variable TIMEOUT)" in end.stderr


def test_a_rank_that_never_comes(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(STOPPED.format("SIGSTOP"))
    first, _ = meeting([script], ["-c", ""], machines=True, TIMEOUT=0.02)
    end = first.end(100)
    assert end.returncode == 2 and end.stderr.startswith("error: rank 1: no answer; ")


@pytest.mark.parametrize("given", ["soon", "0", "-1", "inf", "1e300"])
def test_timeout_is_a_number_of_minutes(given, monkeypatch):
    monkeypatch.setenv("TIMEOUT", given)
    with pytest.raises(UserError, match="TIMEOUT: expected a number of minutes"):
        rendezvous.rendezvous_timeout()


def test_variables_of_no_launcher(monkeypatch):
    """A container may set WORLD_SIZE, or leave it empty."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UserError, match="WORLD_SIZE is 2.* RANK expected.*unset WORLD_SIZE"):
        rendezvous.meeting_store()
    monkeypatch.setenv("WORLD_SIZE", "")
    assert launched_world_size() == 1


@pytest.mark.parametrize("rank", [0, 1])
def test_error_without_launcher_before_others_start(rank, monkeypatch, capsys):
    """In a pod of a PyTorchJob, for example; the rank prints it before it waits for a while."""
    variables = {"WORLD_SIZE": 2, "RANK": rank, "MASTER_ADDR": "localhost"}
    for name, value in (variables | {"MASTER_PORT": free_port()}).items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(rendezvous, "TELL_SECONDS", 0.2)
    monkeypatch.setattr(rendezvous, "_stores", {})
    assert rendezvous.report_failure("no such file", 2) == ("", 2)
    assert capsys.readouterr().err == "error: no such file\n"


def launched(**given):
    """Return the stderr of a launch that fails before its program starts."""
    end = launcher("supervised.py", **given).end(100)
    assert end.returncode == 2 and "Traceback" not in end.stderr, end
    return end.stderr


def test_a_machine_that_is_alone(monkeypatch):
    monkeypatch.setenv("TIMEOUT", "0.02")
    assert "error: NODE_RANK 1: no answer" in launched(nodes=2)
    port = free_port()
    output = launched(nodes=2, node=1, port=port)
    assert f"error: MASTER_ADDR localhost, port {port}: no answer" in output


def test_machines_that_are_started_differently():
    port = free_port()
    options = ["--max_restarts", 2], ["--max_restarts", 3]
    both = [launcher(*options[n], "supervised.py", nodes=2, node=n, port=port) for n in (0, 1)]
    message = "error: NODE_RANK 1: found --max_restarts 3, expected 2 as on NODE_RANK 0. Fix: "
    for end in (one.end(100) for one in both):
        assert end.returncode == 2 and message in end.stderr and "Traceback" not in end.stderr


def test_the_first_machine_ends_while_others_wait():
    port = free_port()
    first, second = [launcher("supervised.py", nodes=3, node=n, port=port) for n in (0, 1)]
    TCPStore("localhost", port, wait_for_workers=False).wait(["here 0", "here 1"])
    first.process.terminate()
    assert first.end(60).returncode == EXIT_CODE
    end = second.end(60)
    assert end.returncode == 1 and "Traceback" not in end.stderr, end
    assert "error: the first machine no longer answers" in end.stderr


def test_a_port_in_use():
    with socket.create_server(("localhost", 0)) as other:
        port = other.getsockname()[1]
        for nodes in (1, 2):
            assert f"error: port {port}: not available" in launched(nodes=nodes, port=port)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("--nproc_per_node 0 --standalone", "--nproc_per_node: found 0, expected 1 or more"),
        ("--nnodes 0", "--nnodes: found 0, expected 1 or more"),
        ("--nnodes 2 --node_rank 2", "NODE_RANK 2: expected 0 to 1 (NNODES is 2)"),
        ("--nnodes 2 --node_rank -1", "NODE_RANK -1: expected 0 to 1 (NNODES is 2)"),
        ("--nnodes 2 --standalone", "--standalone: found --nnodes 2, expected one machine"),
        ("--master_port 65536", "--master_port: found 65536, expected 0 to 65535"),
    ],
)
def test_invalid_launches(options, problem, run):
    assert problem in run(launch, *options.split(), "supervised.py").mistake()
