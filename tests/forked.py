"""Programs in processes of their own that need not import torch, which takes seconds each time:
they are forked from a process that has, and that runs no threads yet."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

from torch.distributed import TCPStore

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["tests.conftest"])


def python(folder: Path, arguments: list[str], environment: dict[str, str]) -> None:
    """What `python *arguments` does with a script, or a module after -m; output to files."""
    for number, name in ((1, "out"), (2, "err")):
        with (folder / name).open("ab") as file:
            os.dup2(file.fileno(), number)
    os.environ.clear()
    os.environ.update(environment)
    *module, name = arguments[: 1 + (arguments[0] == "-m")]
    sys.argv = arguments[len(module) :]
    (runpy.run_module if module else runpy.run_path)(name, run_name="__main__")


def spread(*command, processes: int = 2) -> subprocess.CompletedProcess:
    """A program in several processes that find each other as under the launcher, but go on by
    themselves; returns the exit code that is farthest from 0, and the output of all."""
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    known = {
        "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "localhost",
        "MASTER_PORT": store.port, "TORCHELASTIC_USE_AGENT_STORE": True,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        running = []
        for rank in range(processes):
            variables = os.environ | {k: str(v) for k, v in known.items()}
            variables |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            arguments = Path(folder), [str(part) for part in command], variables
            running.append(FORKED.Process(target=python, args=arguments))
            running[-1].start()
        for process in running:
            process.join(300)
            process.kill()  # if it hangs
            process.join()
        said = [(Path(folder) / name).read_text() for name in ("out", "err")]
    return subprocess.CompletedProcess(command, max((p.exitcode for p in running), key=abs), *said)
