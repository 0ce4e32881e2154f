"""tools/slurm_train.sh between stand-ins for Slurm's programs."""

import os
import signal
import subprocess

import pytest
import torch

from tests.conftest import REPOSITORY, write_programs
from tests.scripts import PATH, SCONTROL, SRUN, environment, until_there
from util.interrupt import EXIT_CODE

SRUN_OF_TWO = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
SLURM_NODEID=0 "$@"; SLURM_NODEID=1 "$@"
"""


@pytest.fixture
def sbatch(tmp_path, variables):
    """Start the script as a job of two nodes; further variables and programs by name."""
    stubs = tmp_path / "stubs"

    def start(*arguments, programs, **more):
        write_programs(stubs, {"scontrol": SCONTROL, **programs})
        return subprocess.Popen(
            ["sh", "tools/slurm_train.sh", *arguments],
            cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment(
                **variables | more, PATH=f"{stubs}:{PATH}", STUBS=stubs, SLURM_JOB_ID=4711,
                SLURM_JOB_NODELIST="node[7,9]", SLURM_SUBMIT_DIR=REPOSITORY,
            ),
        )  # fmt: skip

    start.stubs = stubs
    return start


LONG = ("--set", "epoch_length=4000", "save_every=1")


def test_a_signal_as_the_time_is_almost_up_saves_and_queues_the_job_again(sbatch, variables):
    job = sbatch(*LONG, programs={"srun": SRUN})
    checkpoint = variables["save_path"] / "latest.pth"
    until_there(checkpoint)
    job.send_signal(signal.SIGUSR1)  # to the batch shell only
    output, _ = job.communicate(timeout=60)
    assert job.returncode == EXIT_CODE, output
    assert "stopped by SIGUSR1" in output
    done = torch.load(checkpoint, weights_only=True)["done"]
    assert f"step {done}; the same command continues" in output
    assert (sbatch.stubs / "requeued").read_text() == "requeue 4711\n"


ASKED = """#!/bin/sh
trap 'echo saved; exit 75' TERM USR1
touch "$STUBS/started"
while :; do sleep 0.1; done
"""


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_only_a_job_that_was_not_cancelled_comes_again(number, sbatch):
    job = sbatch(programs={"srun": SRUN, "python": ASKED})
    until_there(sbatch.stubs / "started")
    job.send_signal(number)
    output, _ = job.communicate(timeout=60)
    assert job.returncode == EXIT_CODE and output.endswith("saved\n")
    assert (sbatch.stubs / "requeued").exists() == (number == signal.SIGUSR1)


def test_the_trainings_code_is_the_jobs(sbatch):
    job = sbatch(programs={"srun": SRUN, "python": "#!/bin/sh\necho error; exit 2"})
    output, _ = job.communicate(timeout=60)
    assert job.returncode == 2 and output == "error\n"
    assert not (sbatch.stubs / "requeued").exists()
    options = "--nodes=1 --ntasks=1 --ntasks-per-node=1 --export=ALL "
    assert (sbatch.stubs / "srun").read_text().startswith(options)


def test_the_nodes_find_each_other(sbatch):
    python = "#!/bin/sh\nprintf '%s|' \"$@\"\necho\n"
    job = sbatch(
        "--set", "a b=c", programs={"srun": SRUN_OF_TWO, "python": python},
        SLURM_JOB_NUM_NODES=2, SLURM_GPUS_ON_NODE=4,
    )  # fmt: skip
    output, _ = job.communicate(timeout=60)
    assert job.returncode == 0, output
    first, second = output.splitlines()
    launched = "-m|tools.launch|--nproc_per_node|4|--nnodes|2|--node_rank|{}|--master_addr|node7|"
    restarts = "--master_port|24711|--max_restarts|3|corrmatch.py|"
    assert first.startswith(launched.format(0) + restarts)
    assert first.endswith("|--set|a b=c|")
    assert second == first.replace("node_rank|0", "node_rank|1")


@pytest.mark.parametrize("task", [{"SLURM_ARRAY_TASK_ID": n} for n in (0, 2)] + [{}])
def test_a_job_of_an_array_without_its_line_starts_nothing(task, sbatch, tmp_path):
    """Instead of the defaults of train.sh; also where the file of the array is gone."""
    (tmp_path / "array.sh").write_text("export method=supervised\n")
    programs = {"srun": SRUN, "python": "#!/bin/sh\necho started"}
    for name in ("array.sh", "gone.sh"):
        job = sbatch(programs=programs, array=tmp_path / name, **task)
        output, _ = job.communicate(timeout=60)
        assert job.returncode == 2 and f"{name}: found no line" in output, output
        assert "started" not in output
    job = sbatch(programs=programs, array=tmp_path / "array.sh", SLURM_ARRAY_TASK_ID=1)
    assert "started" in job.communicate(timeout=60)[0] and job.returncode == 0


def test_started_outside_of_the_repository_or_of_slurm(tmp_path):
    script = ["sh", str(REPOSITORY / "tools/slurm_train.sh")]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    done = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and f"{tmp_path} is not the repository" in done.stderr
    done = subprocess.run(script, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "SLURM_JOB_ID" in done.stderr
