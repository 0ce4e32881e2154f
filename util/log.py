"""A run's folder: what was run, what it printed, how it went.

Only the main process writes.  `metrics.jsonl` is the history that the checkpoint holds, written
anew after each epoch, so the two never disagree, whenever a run was interrupted.
"""

import json
import logging
import os
import platform
import subprocess
import sys
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from util import dist
from util.checkpoint import link_atomically, save_atomically
from util.config import Config
from util.config_file import dump_config
from util.errors import UserError

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
    # What is said before the run's folder has a log file waits here for it.
    logger.addHandler(MemoryHandler(capacity=1000, flushLevel=logging.CRITICAL + 1))


def versions() -> dict[str, str]:
    """Python, torch, device and the git commit (with a + where files differ from it)."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "commit": commit.stdout.strip() or "unknown",
    }


class RunFolder:
    """`save_path` with config.yaml, starts.jsonl, log.txt, metrics.jsonl, tensorboard/ and the
    checkpoints.  Raises `UserError` when it cannot be written."""

    def __init__(self, path: Path):
        self.path = path
        self.latest = path / "latest.pth"
        self._writer: SummaryWriter | None = None
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe = path / f".write-test-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(f"--save-path {path}: cannot be written ({error})") from None

    def best(self, name: str = "model") -> Path:
        """The best checkpoint of a network: best.pth, or best_teacher.pth and the like."""
        return self.path / ("best.pth" if name == "model" else f"best_{name}.pth")

    def open(self, config: Config, first_step: int) -> None:
        """Start the log files, after those of an earlier part of the same run."""
        if not dist.is_main():
            return
        file = logging.FileHandler(self.path / "log.txt")
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

    def scalars(self, values: dict[str, float], step: int) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def save(self, state: dict[str, Any], history: list[dict[str, Any]]) -> None:
        """Write the latest checkpoint and the history it holds."""
        if not dist.is_main():
            return
        save_atomically(state, self.latest)
        partial = self.path / "metrics.jsonl.partial"
        partial.write_text("".join(json.dumps(record) + "\n" for record in history))
        partial.replace(self.path / "metrics.jsonl")

    def keep_best(self, best: dict[str, dict[str, float]], epoch: int) -> None:
        """Where the latest checkpoint (of `epoch`) is a network's best one, name it so.

        Done again on resuming, in case a run ended between the two files.
        """
        for name, score in best.items():
            if dist.is_main() and score["epoch"] == epoch:
                link_atomically(self.latest, self.best(name))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        for handler in [h for h in logger.handlers if isinstance(h, logging.FileHandler)]:
            handler.close()
            logger.removeHandler(handler)
