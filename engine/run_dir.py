"""Run directory: config, checkpoints, log, metrics and pictures of a run.

Only rank 0 writes. `metrics.jsonl` is the history of the checkpoint, rewritten after each epoch
and on a resume, so the two always agree.
"""

import fcntl
import functools
import json
import logging
import os
import socket
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from logging.handlers import MemoryHandler
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TextIO

from PIL import Image

from engine.loggers import TRACKERS, Tracker
from inference.overlay import save_picture
from model.checkpoint import cpu_copy, link_atomically, nonfinite_tensors, save_atomically
from model.files import best_checkpoint
from util import distributed
from util.config.differences import differences
from util.config.loading import dump_config
from util.config.schema import Config
from util.errors import UserError, join_first
from util.io import SECONDS_PER_DAY, remove_partials, write_atomically
from util.log import PrintableFormatter, logger, versions
from util.starts import STARTS_FILE, last_start


def _writing(method: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a failure to write into a `UserError`."""

    @functools.wraps(method)
    def wrapper(self: "RunDir", *args: Any) -> Any:
        try:
            return method(self, *args)
        except (OSError, RecursionError) as error:  # RecursionError: too deeply nested folders
            raise UserError(f"--save-path {self.path}: cannot be written ({error})") from None

    return wrapper


def _on_main(method: Callable[..., Any]) -> Callable[..., Any]:
    """Run a method that writes on rank 0; all ranks call it, and return its result or raise its
    `UserError`."""
    guarded = _writing(method)

    @functools.wraps(method)
    def wrapper(*args: Any) -> Any:
        return distributed.on_main(guarded, *args)

    return wrapper


class RunDir:
    """`save_path` with config.yaml, starts.jsonl, log.txt, metrics.jsonl, tensorboard/, pictures/
    and the checkpoints. Raises `UserError` when it cannot be written."""

    def __init__(self, path: Path):
        self.path = path
        self.latest = path / "latest.pth"
        self.previous = path / "previous.pth"
        self.metrics = path / "metrics.jsonl"
        self.config = path / "config.yaml"
        self.starts = path / STARTS_FILE
        self.damaged = False
        """The latest checkpoint could not be read."""
        self.start_fields: dict[str, Any] = {}
        """Further fields of its line in starts.jsonl."""
        self._trackers: list[Tracker] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._written: Future[None] | None = None
        """The task of the thread."""
        self._lock: TextIO | None = None
        self._owner = ""
        """Text in run.lock that identifies this process."""
        self._created = [folder for folder in (path, *path.parents) if not os.path.exists(folder)]
        self._make()

    @_writing
    def _make(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=self.path):  # nameless where possible: a kill leaves none behind
            pass

    @_on_main
    def lock(self) -> None:
        """Lock the directory until `release`.

        The system holds the lock, so a killed run leaves none behind. Raises `UserError` with the
        process that holds it.
        """
        while True:
            file = (self.path / "run.lock").open("a+")
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                with file:
                    file.seek(0)
                    owner = file.read().strip() or "another process"
                raise UserError(
                    f"--save-path {self.path}: in use by {owner}. Fix: wait until it ends, or "
                    "choose another folder"
                ) from None
            except OSError as error:
                file.close()
                logger.warning(
                    "%s: this file system has no locks (%s); two runs in this folder would not be "
                    "noticed", self.path, error,
                )  # fmt: skip
                remove_partials(self.path, idle=SECONDS_PER_DAY)
                return
            # A start that failed may have removed the file in between, see `release`.
            if os.fstat(file.fileno()).st_nlink:
                break
            file.close()
        self._lock = file
        remove_partials(self.path, idle=0)
        file.truncate(0)
        host, start = socket.gethostname(), datetime.now()
        self._owner = f"process {os.getpid()} on {host} since {start:%F %T}"
        file.write(self._owner)
        file.flush()

    def release(self) -> None:
        """Give back the lock; remove its file and the folders that this start made, if it wrote
        nothing else."""
        if not distributed.is_main():
            return
        with suppress(OSError):
            if not self.starts.exists():
                if self._lock and not any(p.name != "run.lock" for p in self.path.iterdir()):
                    (self.path / "run.lock").unlink()
                for folder in self._created:
                    folder.rmdir()  # fails for a folder that is not empty
        if self._lock:
            with suppress(OSError):  # a full disk, which was reported
                self._lock.close()

    def was_started_by_this_command(self) -> bool:
        """Return True if the last start here was by the same command."""
        return last_start(self.path).get("command") == sys.argv

    @_on_main
    def is_latest(self, checkpoint: Path) -> bool:
        return checkpoint.resolve() == self.latest.resolve()

    @_on_main
    def open(self, config: Config, first_step: int, is_finished: bool = False) -> None:
        """Record a start; open the log files, and continue those of an earlier start of the run.

        A finished run is left as it is: nothing is trained by this start's code and settings.
        """
        if is_finished and self.starts.exists():
            return
        file = logging.FileHandler(self.path / "log.txt", encoding="utf-8")
        file.setFormatter(PrintableFormatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        for waiting in [h for h in logger.handlers if isinstance(h, MemoryHandler)]:
            waiting.setTarget(file)
            waiting.close()
            logger.removeHandler(waiting)
        logger.addHandler(file)
        start = {"command": sys.argv, "first_step": first_step, **self.start_fields, **versions()}
        before = self.starts.read_bytes() if self.starts.exists() else b""
        records = before[: before.rfind(b"\n") + 1]  # without half a line of an earlier version
        records += json.dumps(start).encode() + b"\n"
        settings = dump_config(config).encode()
        if first_step:
            self._compare_facts()
        # First: it marks config.yaml as a run's.
        write_atomically(self.starts, lambda file: file.write(records))
        write_atomically(self.config, lambda file: file.write(settings))
        logger.info("%s", " ".join(f"{k} {v}" for k, v in versions().items()))
        for name in config.log.trackers:
            self._trackers.append(TRACKERS[name](config, self.path, first_step))

    def _compare_facts(self) -> None:
        """Warn of changes since the last start that the config does not show."""
        last, now = last_start(self.path), versions() | self.start_fields.get("facts", {})
        # Older versions recorded no facts.
        before = last.get("facts") or {key: last[key] for key in ("commit", "torch") if key in last}
        if changed := differences(before, {key: now.get(key, before[key]) for key in before}):
            logger.warning(
                "%s: resumed with other code, libraries or order of images: %s",
                self.path, "; ".join(changed.values()),
            )  # fmt: skip

    @_writing
    def log_scalars(self, values: dict[str, float], step: int) -> None:
        """Send scalars to the trackers."""
        for tracker in self._trackers:
            tracker.log_scalars(values, step)

    @_writing
    def save_pictures(self, pictures: dict[str, Image.Image], epoch: int, step: int) -> None:
        """Save the pictures of a validation as PNG, and send them to the trackers."""
        folder = pictures_folder(self.path, epoch)
        for name, picture in pictures.items():
            save_picture(picture, folder / f"{name}.png")
        for tracker in self._trackers:
            tracker.log_pictures({f"pictures/{name}": p for name, p in pictures.items()}, step)

    @_on_main
    def refuse_nonfinite(self, state: dict[str, Any]) -> None:
        """Raise `UserError` where weights or momenta of a checkpoint's content are not finite."""
        parts = {name: state[name] for name in ("method", "optimizer")}
        if found := nonfinite_tensors(parts):
            raise UserError(
                f"{self.latest}: not written, as {join_first(found, 3)} hold NaN or infinity after "
                f"epoch {state['epoch']}, step {state['done']}; the last checkpoint is kept. Fix: "
                "lower optimizer.lr (--set optimizer.lr=... --force), or set precision: float32"
            )

    @_on_main
    def save(self, state: dict[str, Any]) -> None:
        """Write latest.pth, metrics.jsonl and the links to best checkpoints, in the background.

        Returns when everything is copied; raises `UserError` when the checkpoint before could not
        be written.
        """
        self._wait()
        self._written = self._thread.submit(self._write, cpu_copy(state))

    @_writing
    def _write(self, state: dict[str, Any]) -> None:
        self._require_lock()
        if self.damaged:
            self.latest.replace(self.path / "damaged.pth")
            self.damaged = False
        save_atomically(state, self.latest, self.previous)
        self.restore(state)

    @_writing
    def restore(self, state: dict[str, Any]) -> None:
        """Write what follows from latest.pth: metrics.jsonl and the links to best checkpoints.

        metrics.jsonl comes last: with it, a run counts as finished.
        """
        for name, best in state["best"].items():
            if best["epoch"] == state["epoch"] and not state["done"]:
                link_atomically(self.latest, best_checkpoint(self.path, name))
        lines = "".join(json.dumps(record) + "\n" for record in state["history"]).encode()
        write_atomically(self.metrics, lambda file: file.write(lines))

    def _require_lock(self) -> None:
        """Raise `UserError` if another run took the directory: its lock file is another one or,
        where machines do not see each other's locks, names another owner."""
        if self._lock is None:
            return
        with suppress(FileNotFoundError):  # removed by hand
            current = os.stat(self.path / "run.lock")
            own = self._lock.fileno()  # opening and closing the file again would release the lock
            owner = os.pread(own, 1000, 0).decode(errors="replace")
            if owner != self._owner or not os.path.samestat(os.fstat(own), current):
                raise UserError(
                    f"--save-path {self.path}: another run took this folder while this run "
                    "trained; this run ends"
                )

    @_on_main
    def wait_for_writes(self) -> None:
        """Wait until everything is written: data workers must not fork from a writing process.

        Raises `UserError` when something could not be written.
        """
        self._wait()

    def _wait(self) -> None:
        last, self._written = self._written, None
        if last is not None:
            last.result()

    def close(self) -> None:
        """Close the log files; raises `UserError` when the last checkpoint could not be written."""
        try:
            self._wait()
        finally:
            files = [h for h in logger.handlers if isinstance(h, logging.FileHandler)]
            for log in (*self._trackers, *files):
                with suppress(OSError):  # a full disk, which was reported
                    log.close()
            for handler in files:
                logger.removeHandler(handler)


def pictures_folder(run: Path, epoch: int) -> Path:
    """Return the folder for the pictures of the validation after an epoch, counted from 1."""
    return run / "pictures" / f"epoch_{epoch:03}"
