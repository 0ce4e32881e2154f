"""The shell scripts, as their users run them."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from util.interrupt import EXIT_CODE

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


def test_a_signal_to_all_saves_and_is_in_the_console_file(variables):
    """Ctrl-C and batch systems signal the shell and what writes the console's file as well."""
    run = variables["save_path"]
    process = subprocess.Popen(
        ["sh", "tools/train.sh", "0", "1", "--set", "epoch_length=4000", "save_every=1"],
        cwd=REPOSITORY, start_new_session=True, text=True, stdout=subprocess.PIPE,
        env=ENVIRONMENT | {k: str(v) for k, v in variables.items()}, stderr=subprocess.STDOUT,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (run / "latest.pth").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == EXIT_CODE, output
    assert "stopped by SIGINT" in output and (run / "console.txt").read_text() == output


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


NETWORK = """
    ip link set lo up
    unshare -n sleep 600 & other=$!
    until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do :; done
    trap 'kill $other' EXIT
    in_other() { nsenter -t $other -n "$@"; }
    ip link add wire type veth peer name wire netns $other
    ip address add 10.77.0.1/24 dev wire && ip link set wire up
    in_other ip address add 10.77.0.2/24 dev wire && in_other ip link set wire up
"""
"""Two machines with a wire between them, as namespaces that end with their processes."""


def test_several_machines_on_a_network_of_their_own(variables):
    if not shutil.which("ip"):
        pytest.skip("needs ip (iproute2)")
    possible = subprocess.run(["unshare", "-rn", "sh", "-ec", NETWORK], capture_output=True)
    if possible.returncode:
        pytest.skip(f"no networks may be made here: {possible.stderr.decode().strip()}")
    train = "sh tools/train.sh 1 29513 --device cpu --set epochs=1 batch_size=4"
    done = subprocess.run(
        ["unshare", "-rn", "sh", "-ec", f"""{NETWORK}
         NODE_RANK=1 in_other {train} & second=$!
         NODE_RANK=0 {train}; wait $second"""],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False,
        env=ENVIRONMENT | {k: str(v) for k, v in variables.items()}
        | {"NNODES": "2", "MASTER_ADDR": "10.77.0.1", "GLOO_SOCKET_IFNAME": "wire"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("best mIoU") == 1
    assert (variables["save_path"] / "latest.pth").exists()
