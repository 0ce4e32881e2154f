"""Programs in processes of their own that need not import torch, which takes seconds each time:
they are forked from a process that has, and that runs no threads yet."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch.distributed import TCPStore

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["tests.conftest"])


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
    """Where it meets the other ranks."""

    def __init__(self, *command: object, **variables: object):
        self._output = tempfile.TemporaryDirectory()
        environment = os.environ | {name: str(value) for name, value in variables.items()}
        arguments = Path(self._output.name), [str(part) for part in command], environment
        self.process = FORKED.Process(target=python, args=arguments)
        self.process.start()

    def end(self, patience: float = 300) -> subprocess.CompletedProcess:
        """Waits for it, and kills it where it hangs."""
        self.process.join(patience)
        self.process.kill()
        self.process.join()
        with self._output as folder:
            said = [(Path(folder) / name).read_text() for name in ("out", "err")]
        return subprocess.CompletedProcess([], self.process.exitcode, *said)


def meeting(*commands: Sequence[object], machines: bool, **variables: object) -> list[Forked]:
    """One program for each rank, on one machine or each on a machine of its own; they find each
    other as under the launcher, but go on by themselves."""
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    ranks = range(len(commands))
    variables |= {
        "WORLD_SIZE": len(commands), "LOCAL_WORLD_SIZE": 1 if machines else len(commands),
        "MASTER_ADDR": "localhost", "MASTER_PORT": store.port, "TORCHELASTIC_USE_AGENT_STORE": True,
    }  # fmt: skip
    places = [{"GROUP_RANK": n} if machines else {"LOCAL_RANK": n} for n in ranks]
    running = [Forked(*commands[n], RANK=n, **places[n], **variables) for n in ranks]
    for one in running:
        one.store = store  # lives as long as they do
    return running


def spread(*command: object, processes: int = 2) -> subprocess.CompletedProcess:
    """A program in several processes of one machine; returns the exit code that is farthest from 0,
    and the output of all."""
    ends = [process.end() for process in meeting(*[command] * processes, machines=False)]
    said = ["".join(parts) for parts in zip(*((e.stdout, e.stderr) for e in ends), strict=True)]
    return subprocess.CompletedProcess(command, max((e.returncode for e in ends), key=abs), *said)
