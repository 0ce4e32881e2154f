"""Start programs without the seconds that importing torch takes.

They are forked from a server process that has imported torch and runs no threads.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch.distributed import TCPStore

from tests.scripts import free_port

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["tests.conftest", "tests.method_classes", "engine.command"])


def python(folder: Path, arguments: list[str], environment: dict[str, str]) -> None:
    """Run a script, or a module after -m, as `python *arguments` does; output goes to files."""
    for number, name in ((1, "out"), (2, "err")):
        with (folder / name).open("wb") as file:
            os.dup2(file.fileno(), number)
    os.environ.clear()
    os.environ.update(environment)
    *module, name = arguments[: 1 + (arguments[0] == "-m")]
    sys.argv = arguments[len(module) :]
    (runpy.run_module if module else runpy.run_path)(name, run_name="__main__")


class Forked:
    """A running program."""

    store: TCPStore | None = None
    """Store at which the ranks meet; it must live as long as they run."""

    def __init__(self, *command: object, **variables: object):
        self._output = tempfile.TemporaryDirectory()
        environment = os.environ | {name: str(value) for name, value in variables.items()}
        arguments = Path(self._output.name), [str(part) for part in command], environment
        self.process = FORKED.Process(target=python, args=arguments)
        self.process.start()

    def end(self, patience: float = 300) -> subprocess.CompletedProcess:
        """Wait for the program, at most `patience` seconds; then kill it."""
        self.process.join(patience)
        self.process.kill()
        self.process.join()
        with self._output as folder:
            outputs = [(Path(folder) / name).read_text() for name in ("out", "err")]
        return subprocess.CompletedProcess([], self.process.exitcode, *outputs)


def meeting(*commands: Sequence[object], machines: bool, **variables: object) -> list[Forked]:
    """Start one program per rank, with the launcher's variables, on one node or one node each."""
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    ranks = range(len(commands))
    variables |= {
        "WORLD_SIZE": len(commands), "LOCAL_WORLD_SIZE": 1 if machines else len(commands),
        "MASTER_ADDR": "localhost", "MASTER_PORT": store.port, "TORCHELASTIC_USE_AGENT_STORE": True,
    }  # fmt: skip
    places = [{"GROUP_RANK": n} if machines else {"LOCAL_RANK": n} for n in ranks]
    running = [Forked(*commands[n], RANK=n, **places[n], **variables) for n in ranks]
    for one in running:
        one.store = store
    return running


def spread(*command: object, processes: int = 2) -> subprocess.CompletedProcess:
    """Run a program in several processes of one node.

    Returns the exit code with the largest absolute value and the outputs of all processes.
    """
    ends = [process.end() for process in meeting(*[command] * processes, machines=False)]
    outputs = ["".join(parts) for parts in zip(*((e.stdout, e.stderr) for e in ends), strict=True)]
    return subprocess.CompletedProcess(
        command, max((e.returncode for e in ends), key=abs), *outputs
    )


def launcher(*command, nodes=1, node=0, port=None):
    """Start two processes for each node, as train.sh does."""
    return Forked(
        "-m", "tools.launch", "--nproc_per_node", 2, "--nnodes", nodes, "--node_rank", node,
        "--master_addr", "localhost", "--master_port", port or free_port(), *command,
    )  # fmt: skip


PROGRAM = """
import os, signal, sys, time
rank, start = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
if os.environ["LOCAL_RANK"] == "1":
    print("start", flush=True)
{}
time.sleep(60)
"""


def machines(folder, program, restarts, count=1):
    """Launch two processes on each of several nodes that run a few lines; return exit code, number
    of starts and stderr of each node."""
    script = folder / "program.py"
    script.write_text(PROGRAM.format(program))
    port = free_port()
    launches = [
        launcher("--max_restarts", restarts, script, nodes=count, node=node, port=port)
        for node in range(count)
    ]
    ends = [one.end(120) for one in launches]
    return [(end.returncode, end.stdout.count("start"), end.stderr) for end in ends]
