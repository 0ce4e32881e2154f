"""Starting shell scripts as users do, and stand-ins for Slurm's programs."""

import os
import socket
import sys
import time
from pathlib import Path

PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
SCONTROL = """#!/bin/sh
case $1 in
    show) printf '%s\\n' node7 node9 ;;
    *) echo "$@" >>"$STUBS/requeued" ;;
esac
"""
SRUN = """#!/bin/sh
echo "$@" >"$STUBS/srun"
while [ "${1#-}" != "$1" ]; do shift; done
trap 'kill -USR1 $task' USR1
trap 'kill -KILL $task' TERM  # as srun does: it forwards no SIGTERM
SLURM_NODEID=0 "$@" &
task=$!
while kill -0 $task 2>/dev/null; do
    wait $task
    status=$?
done
exit $status
"""


def environment(**variables):
    """Return the environment of a script, with further variables."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("NNODES", "save_path")}
    inherited |= {"PATH": PATH, "VIRTUAL_ENV": sys.prefix}
    return inherited | {name: str(value) for name, value in variables.items()}


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def until_there(path):
    """Wait for a file, at most two minutes."""
    deadline = time.monotonic() + 120
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert path.exists()
