"""A run's folder: what was run, what it printed, how it went.

Only the main process writes.  `metrics.jsonl` is the history that the checkpoint holds, written
anew after each epoch and when a run is resumed, so the two never disagree in the end.
"""

import fcntl
import functools
import json
import logging
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from logging.handlers import MemoryHandler
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from util import dist
from util.checkpoint import (
    Background,
    cpu_copy,
    link_atomically,
    save_atomically,
)
from util.config import Config
from util.config_file import dump_config
from util.errors import UserError
from util.writing import write_atomically

logger = logging.getLogger("semi")


class _TqdmHandler(logging.StreamHandler):
    """Prints above a progress bar instead of into it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


def say_to_console() -> None:
    """Show the main process's log lines on the terminal."""
    logger.handlers.clear()
    logger.propagate = False
    logger.setLevel(logging.INFO if dist.is_main() else logging.ERROR)
    logger.addHandler(_TqdmHandler())
    logging.raiseExceptions = False  # that the disk is full, the next checkpoint says
    # What is said before the run's folder has a log file waits here for it.
    logger.addHandler(MemoryHandler(capacity=1000, flushLevel=logging.CRITICAL + 1))


def versions() -> dict[str, str]:
    """Python, torch, device and the git commit (with a + where files differ from it)."""
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
    except OSError:  # no git here
        commit = ""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "commit": commit or "unknown",
    }


def _writing(method: Callable[..., None]) -> Callable[..., None]:
    """Of a folder: what it cannot write, the user has to mend."""

    @functools.wraps(method)
    def telling(self: "RunFolder", *args: Any, **named: Any) -> None:
        try:
            method(self, *args, **named)
        except (OSError, RecursionError) as error:  # the latter for folders in folders in folders
            raise UserError(f"--save-path {self.path}: cannot be written ({error})") from None

    return telling


class RunFolder:
    """`save_path` with config.yaml, starts.jsonl, log.txt, metrics.jsonl, tensorboard/ and the
    checkpoints.  Raises `UserError` when it cannot be written."""

    def __init__(self, path: Path):
        self.path = path
        self.latest = path / "latest.pth"
        self.previous = path / "previous.pth"
        self.damaged = False
        """Whether the latest checkpoint could not be read."""
        self._writer: SummaryWriter | None = None
        self._background = Background()
        self._make()

    @_writing
    def _make(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=self.path):  # nameless where the system can: a kill leaves none
            pass

    def best(self, name: str = "model") -> Path:
        """The best checkpoint of a network: best.pth, or best_teacher.pth and the like."""
        return self.path / ("best.pth" if name == "model" else f"best_{name}.pth")

    @_writing
    def lock(self) -> None:
        """Keep other runs out until this process ends, however it ends.

        The system holds the lock, so none is left behind by a run that was killed.  Raises
        `UserError` that names the process which has it.
        """
        self._lock = (self.path / "run.lock").open("a+")
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            self._lock.seek(0)
            owner = self._lock.read().strip() or "another process"
            raise UserError(
                f"--save-path {self.path}: in use by {owner}; let it end, or choose another folder"
            ) from None
        except OSError as error:
            logger.warning("%s: this file system has no locks (%s)", self.path, error)
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._lock.flush()

    @_writing
    def open(self, config: Config, first_step: int) -> None:
        """Start the log files, after those of an earlier part of the same run."""
        if not dist.is_main():
            return
        file = logging.FileHandler(self.path / "log.txt", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        for waiting in [h for h in logger.handlers if isinstance(h, MemoryHandler)]:
            waiting.setTarget(file)
            waiting.close()
            logger.removeHandler(waiting)
        logger.addHandler(file)
        (self.path / "config.yaml").write_text(dump_config(config))
        start = {"command": sys.argv, "first_step": first_step, **versions()}
        with (self.path / "starts.jsonl").open("a") as record:
            record.write(json.dumps(start) + "\n")
        logger.info("%s", " ".join(f"{k} {v}" for k, v in versions().items()))
        # Events of steps that are run again after an interruption are dropped by TensorBoard.
        self._writer = SummaryWriter(str(self.path / "tensorboard"), purge_step=first_step)

    @_writing
    def scalars(self, values: dict[str, float], step: int) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def save(self, state: dict[str, Any], history: list[dict[str, Any]]) -> None:
        """Write the latest checkpoint and the history it holds, beside the training.

        Returns when all is copied; raises `UserError` when the one before could not be written.
        """
        if not dist.is_main():
            return
        self._background.wait()
        self._background.then(functools.partial(self._write, cpu_copy(state), cpu_copy(history)))

    @_writing
    def _write(self, state: dict[str, Any], history: list[dict[str, Any]]) -> None:
        if self.damaged:
            self.latest.replace(self.path / "damaged.pth")
            self.damaged = False
        save_atomically(state, self.latest, self.previous)
        self.write_history(history)

    def write_history(self, history: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(record) + "\n" for record in history).encode()
        write_atomically(self.path / "metrics.jsonl", lambda file: file.write(lines))

    def settle(self) -> None:
        """Wait until all is written: data workers should not be forked off a writing process."""
        self._background.wait()

    def keep_best(self, best: dict[str, dict[str, float]], epoch: int) -> None:
        """Where the latest checkpoint (of `epoch`) is a network's best one, name it so, as soon as
        it is written."""
        for name, score in best.items():
            if dist.is_main() and score["epoch"] == epoch:
                link = functools.partial(link_atomically, self.latest, self.best(name))
                self._background.then(link)

    def close(self) -> None:
        """End the log files; raises `UserError` when the last checkpoint could not be written."""
        try:
            self._background.wait()
        finally:
            self._close_logs()

    def _close_logs(self) -> None:
        if self._writer is not None:
            with suppress(OSError):  # a full disk, which has been said
                self._writer.close()
        for handler in [h for h in logger.handlers if isinstance(h, logging.FileHandler)]:
            handler.close()
            logger.removeHandler(handler)
