"""The shell scripts, run as users do."""

import os
import shutil
import signal
import subprocess

import pytest

from tests.conftest import REPOSITORY, write_programs
from tests.scripts import PATH, environment, free_port, until_there
from util.interrupt import EXIT_CODE


def sh(script, *arguments, **variables):
    return subprocess.run(
        ["sh", f"tools/{script}.sh", *map(str, arguments)],
        cwd=REPOSITORY, env=environment(**variables),
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_train_and_val(variables):
    done = sh("train", 0, 29511, "--set", "epochs=1", **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    run = variables["save_path"]
    assert "mIoU" in done.stdout and (run / "console.txt").read_text() == done.stdout
    console = (run / "console.txt").read_bytes()
    scores = set()
    for given in (
        {"save_path": run},
        {"config": variables["config"], "checkpoint_path": run / "best.pth"},
    ):
        done = sh("val", 0, 29511, **given)
        assert done.returncode == 0 and "images of" in done.stdout
        scores.add(done.stdout.partition(" IoU ")[2].partition("images of")[0])
    assert len(scores) == 1 and (run / "console.txt").read_bytes() == console


@pytest.fixture
def stub(variables, tmp_path):
    """Run train.sh with a stub of `python` that prints its arguments and fails."""
    python = '#!/bin/sh\necho "$@"\necho "error: x" >&2\nexit 2\n'
    write_programs(tmp_path / "stub", {"python": python})
    path = f"{tmp_path / 'stub'}:{PATH}"
    return lambda *arguments, **more: sh("train", *arguments, **variables, **more, PATH=path)


@pytest.mark.parametrize(
    ("num_gpu", "more", "launched"),
    [
        (0, {}, "--standalone --max_restarts 3"),
        (2, {}, "--nproc_per_node 2 --nnodes 1"),
        (0, {"NNODES": 2, "NODE_RANK": 1}, "--nproc_per_node 1 --nnodes 2 --node_rank 1"),
    ],
)
def test_exit_status_and_output_are_the_trainings(num_gpu, more, launched, stub, variables):
    done = stub(num_gpu, 29511, **more)
    assert done.returncode == 2
    assert done.stdout.startswith(f"-m tools.launch {launched} ")
    assert f"--device {'cuda' if num_gpu else 'cpu'}" in done.stdout
    assert "--unlabeled-id-path" in done.stdout
    console = (variables["save_path"] / "console.txt").read_text()
    assert console == done.stdout and console.endswith("\nerror: x\n")


def test_suponly_gets_no_unlabelled_list(stub, variables):
    variables["method"] = "supervised"
    output = stub(0, 29511).stdout
    assert "supervised.py" in output and "--labeled-id-path" in output
    assert "--unlabeled-id-path" not in output


@pytest.mark.parametrize("given", [{}, {"labeled_id_path": "", "unlabeled_id_path": ""}])
@pytest.mark.parametrize("config", ["mine/pascal.yaml", "configs/pascal.yaml"])
def test_without_split_files_the_config_names_them(config, given, stub, variables):
    del variables["labeled_id_path"], variables["unlabeled_id_path"]
    variables["config"] = config
    output = stub(0, 29511, **given).stdout
    assert f"--config {config}" in output and "labeled-id-path" not in output


def test_a_signal_to_all_saves_and_is_in_the_console_file(variables):
    """Signal the whole process group, as Ctrl-C and batch systems do."""
    run = variables["save_path"]
    process = subprocess.Popen(
        ["sh", "tools/train.sh", "0", "1", "--set", "epoch_length=4000", "save_every=1"],
        cwd=REPOSITORY, start_new_session=True, text=True, stdout=subprocess.PIPE,
        env=environment(**variables), stderr=subprocess.STDOUT,
    )  # fmt: skip
    until_there(run / "latest.pth")
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == EXIT_CODE, output
    assert "stopped by SIGINT" in output and (run / "console.txt").read_text() == output


@pytest.mark.parametrize(
    ("arguments", "variables", "problem"),
    [
        ((), {}, "usage: "),
        ((1,), {}, "usage: "),
        (("x", 1), {}, "<num_gpu> is 'x'"),
        ((0, 1), {"MAX_RESTARTS": "many"}, "MAX_RESTARTS is 'many'"),
    ],
)
def test_usage(arguments, variables, problem):
    done = sh("train", *arguments, **variables)
    assert done.returncode == 2 and problem in done.stderr


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
"""Two machines on a network, as network namespaces that end with their processes."""


def test_several_machines(variables):
    """Use network namespaces if the system allows them, else two launches on this machine."""
    possible = (
        shutil.which("ip")
        and not subprocess.run(
            ["unshare", "-rn", "sh", "-ec", NETWORK], capture_output=True
        ).returncode
    )
    shell, machines, address, wire = (
        (["unshare", "-rn"], NETWORK, "10.77.0.1", {"GLOO_SOCKET_IFNAME": "wire"})
        if possible else ([], 'in_other() { "$@"; }', "localhost", {})
    )  # fmt: skip
    train = f"sh tools/train.sh 1 {free_port()} --device cpu --set epochs=1 batch_size=4"
    done = subprocess.run(
        [*shell, "sh", "-ec", f"""{machines}
         NODE_RANK=1 in_other {train} & second=$!
         NODE_RANK=0 {train}; wait $second"""],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False,
        env=environment(**variables, NNODES=2, MASTER_ADDR=address, **wire),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("best mIoU") == 1
    assert (variables["save_path"] / "latest.pth").exists()
