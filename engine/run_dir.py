"""Run directory: config, checkpoints, log, metrics and pictures of a run.

Only the main process writes.  `metrics.jsonl` is the checkpoint's history, written anew after each
epoch and on a resume, so the two always agree.
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
from logging.handlers import MemoryHandler
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TextIO

from PIL import Image

from engine.loggers import Tracker, open_trackers
from inference.overlay import save_picture
from model.checkpoint import cpu_copy, link_atomically, load, save_atomically
from model.files import best_checkpoint, require_resumable
from util import distributed
from util.config.loading import dump_config
from util.config.schema import Config
from util.errors import UserError
from util.io import DAY, remove_partials, write_atomically
from util.log import PrintableFormatter, logger, versions


def _writing(method: Callable[..., None]) -> Callable[..., None]:
    """Turn a failure to write into a `UserError`."""

    @functools.wraps(method)
    def wrapper(self: "RunDir", *args: Any, **named: Any) -> None:
        try:
            method(self, *args, **named)
        except (OSError, RecursionError) as error:  # the latter for folders in folders in folders
            raise UserError(f"--save-path {self.path}: cannot be written ({error})") from None

    return wrapper


class RunDir:
    """`save_path` with config.yaml, starts.jsonl, log.txt, metrics.jsonl, tensorboard/, pictures/
    and the checkpoints.  Raises `UserError` when it cannot be written."""

    def __init__(self, path: Path):
        self.path = path
        self.latest = path / "latest.pth"
        self.previous = path / "previous.pth"
        self.metrics = path / "metrics.jsonl"
        self.config = path / "config.yaml"
        self.starts = path / "starts.jsonl"
        self.damaged = False
        """The latest checkpoint could not be read."""
        self.origin: dict[str, Any] = {}
        """Further facts about the run for starts.jsonl."""
        self._trackers: list[Tracker] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._written: Future[None] | None = None
        """The last task of the thread; after one that failed, no other runs."""
        self._lock: TextIO | None = None
        self._made = [folder for folder in (path, *path.parents) if not os.path.exists(folder)]
        self._make()

    @_writing
    def _make(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=self.path):  # nameless where possible: a kill leaves none behind
            pass

    def best(self, name: str) -> Path:
        return best_checkpoint(self.path, name)

    def refuse_to_overwrite(self, source: Path | None = None) -> None:
        """Raise `UserError` where a run that begins here, from no checkpoint or from `source`,
        would overwrite files of another run or of the user."""
        here = (self.latest, self.previous)
        bests = sorted(self.path.glob("best*.pth"))
        others = [self.metrics] + [self.config] * (not self.starts.exists())
        found = [path for path in (*here, *bests, *others) if path.is_file()]
        own = [path for path in found if source and path.resolve() == source.resolve()]
        if own:  # the same run continues: only a later checkpoint would be lost
            found = [path for path in found[: found.index(own[0])] if path in here]
        if not found:
            return
        fix = "move the files away, or choose another folder"
        if found[0] in here:
            fix = "pass --resume auto to continue that run, or choose another folder"
        elif found[0] in bests:
            fix = f"pass --resume {found[0]} to continue from it, or choose another folder"
        raise UserError(
            f"--save-path {self.path}: a new run would overwrite "
            f"{', '.join(path.name for path in found)}. Fix: {fix}"
        )

    @_writing
    def lock(self) -> None:
        """Lock the directory until `release`.

        The system holds the lock, so a killed run leaves none behind.  Raises `UserError` with the
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
                logger.warning("%s: this file system has no locks (%s)", self.path, error)
                remove_partials(self.path, idle=DAY)
                return
            # A start that failed may have removed the file in between, see `release`.
            if os.fstat(file.fileno()).st_nlink:
                break
            file.close()
        self._lock = file
        remove_partials(self.path, idle=0)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
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
                for folder in self._made:
                    folder.rmdir()  # which fails where anything is in it
        if self._lock:
            self._lock.close()

    def is_own(self) -> bool:
        """Return whether the last start here was by the same command."""
        try:
            *_, last = self.starts.read_text().splitlines()
            return bool(json.loads(last)["command"] == sys.argv)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    @_writing
    def open(self, config: Config, first_step: int) -> None:
        """Open the log files, and continue those of an earlier start of the run."""
        if not distributed.is_main():
            return
        file = logging.FileHandler(self.path / "log.txt", encoding="utf-8")
        file.setFormatter(PrintableFormatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        for waiting in [h for h in logger.handlers if isinstance(h, MemoryHandler)]:
            waiting.setTarget(file)
            waiting.close()
            logger.removeHandler(waiting)
        logger.addHandler(file)
        start = {"command": sys.argv, "first_step": first_step, **self.origin, **versions()}
        with self.starts.open("a") as record:  # first: it marks config.yaml as a run's
            record.write(json.dumps(start) + "\n")
        self.config.write_text(dump_config(config))
        logger.info("%s", " ".join(f"{k} {v}" for k, v in versions().items()))
        self._trackers = open_trackers(config, self.path, first_step)

    @_writing
    def scalars(self, values: dict[str, float], step: int) -> None:
        for tracker in self._trackers:
            tracker.scalars(values, step)

    @_writing
    def pictures(self, pictures: dict[str, Image.Image], epoch: int, step: int) -> None:
        """Save the pictures of a validation as PNG, and send them to the trackers."""
        folder = pictures_folder(self.path, epoch)
        for name, picture in pictures.items():
            save_picture(picture, folder / f"{name}.png")
        for tracker in self._trackers:
            tracker.pictures({f"pictures/{name}": p for name, p in pictures.items()}, step)

    def save(self, state: dict[str, Any], history: list[dict[str, Any]]) -> None:
        """Write the latest checkpoint and its history in the background.

        Returns when everything is copied; raises `UserError` when the checkpoint before could not
        be written.
        """
        if not distributed.is_main():
            return
        self.settle()
        self._in_background(functools.partial(self._write, cpu_copy(state), cpu_copy(history)))

    @_writing
    def _write(self, state: dict[str, Any], history: list[dict[str, Any]]) -> None:
        if self.damaged:
            self.latest.replace(self.path / "damaged.pth")
            self.damaged = False
        save_atomically(state, self.latest, self.previous)
        self.write_history(history)

    def write_history(self, history: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(record) + "\n" for record in history).encode()
        write_atomically(self.metrics, lambda file: file.write(lines))

    def settle(self) -> None:
        """Wait until everything is written: data workers must not fork from a writing process.

        Raises `UserError` when something could not be written.
        """
        last, self._written = self._written, None
        if last is not None:
            last.result()

    def keep_best(self, best: dict[str, dict[str, float]], epoch: int) -> None:
        """Name the latest checkpoint (of `epoch`) the best one of each network that it is best for,
        as soon as it is written."""
        for name, score in best.items():
            if distributed.is_main() and score["epoch"] == epoch:
                link = functools.partial(link_atomically, self.latest, self.best(name))
                self._in_background(link)

    def close(self) -> None:
        """Close the log files; raises `UserError` when the last checkpoint could not be written."""
        try:
            self.settle()
        finally:
            self._close_logs()

    def _in_background(self, task: Callable[[], None]) -> None:
        before = self._written

        def after_that() -> None:
            if before is not None:
                before.result()
            task()

        self._written = self._thread.submit(after_that)

    def _close_logs(self) -> None:
        for tracker in self._trackers:
            with suppress(OSError):  # a full disk, which was reported
                tracker.close()
        for handler in [h for h in logger.handlers if isinstance(h, logging.FileHandler)]:
            logger.removeHandler(handler)
            with suppress(OSError):
                handler.close()


def pictures_folder(run: Path, epoch: int) -> Path:
    """Return the folder for the pictures of the validation after an epoch, counted from 1."""
    return run / "pictures" / f"epoch_{epoch:03}"


def state_to_resume(folder: RunDir, resume: str) -> tuple[Any, Path] | None:
    """Return the content and the path of the checkpoint to continue from, if there is one.

    `never` and a path hold for the first start of a run: a restart continues from its own last
    checkpoint.  Raises `UserError` when a new run would overwrite files, when the named checkpoint
    is missing, and when no checkpoint is readable.
    """
    there = [path for path in (folder.latest, folder.previous) if path.exists()]
    if there and (resume == "auto" or (distributed.is_restart() and folder.is_own())):
        return _first_readable(folder, there)
    if resume in ("auto", "never"):
        folder.refuse_to_overwrite()
        return None
    source = require_resumable(resume)
    folder.refuse_to_overwrite(source)
    return load(source), source


def _first_readable(folder: RunDir, there: list[Path]) -> tuple[Any, Path] | None:
    for number, path in enumerate(there, start=1):
        try:
            return load(path), path
        except UserError as error:
            if number == len(there):
                raise
            logger.warning("%s; continuing from the one before, %s", error, there[number])
            folder.damaged = True
    return None
