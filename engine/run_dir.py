"""A run's folder: what was run, what it printed, how it went.

Only the main process writes.  `metrics.jsonl` is the history that the checkpoint holds, written
anew after each epoch and when a run is resumed, so the two never disagree in the end.
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
from typing import Any

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
    """Of a folder: what it cannot write, the user has to mend."""

    @functools.wraps(method)
    def telling(self: "RunDir", *args: Any, **named: Any) -> None:
        try:
            method(self, *args, **named)
        except (OSError, RecursionError) as error:  # the latter for folders in folders in folders
            raise UserError(f"--save-path {self.path}: cannot be written ({error})") from None

    return telling


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
        """Whether the latest checkpoint could not be read."""
        self.origin: dict[str, Any] = {}
        """What starts.jsonl shall say of the run beside its command and versions."""
        self._trackers: list[Tracker] = []
        self._background = Background()
        self._has_lock = False
        self._made = [folder for folder in (path, *path.parents) if not os.path.exists(folder)]
        self._make()

    @_writing
    def _make(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=self.path):  # nameless where the system can: a kill leaves none
            pass

    def best(self, name: str) -> Path:
        return best_checkpoint(self.path, name)

    def refuse_to_overwrite(self, source: Path | None = None) -> None:
        """Raise `UserError` where a run that begins here, from no checkpoint or from `source`,
        would overwrite what another run or the user left."""
        here = (self.latest, self.previous)
        bests = sorted(self.path.glob("best*.pth"))
        others = [self.metrics] + [self.config] * (not self.starts.exists())
        found = [path for path in (*here, *bests, *others) if path.is_file()]
        own = [path for path in found if source and path.resolve() == source.resolve()]
        if own:  # this run goes on: only a later checkpoint would be lost
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
        """Keep other runs out until this process ends, however it ends.

        The system holds the lock, so none is left behind by a run that was killed.  Raises
        `UserError` that names the process which has it.
        """
        file = self.path / "run.lock"
        try:
            while not self._has_lock:
                self._lock = file.open("a+")
                fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Unless a start that failed has removed the file in between, see `leave_unused`.
                self._has_lock = os.fstat(self._lock.fileno()).st_nlink > 0
        except (BlockingIOError, PermissionError):
            self._lock.seek(0)
            owner = self._lock.read().strip() or "another process"
            raise UserError(
                f"--save-path {self.path}: in use by {owner}; let it end, or choose another folder"
            ) from None
        except OSError as error:
            logger.warning("%s: this file system has no locks (%s)", self.path, error)
            remove_partials(self.path, idle=DAY)
        else:
            remove_partials(self.path, idle=0)
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._lock.flush()

    def leave_unused(self) -> None:
        """Remove the lock file and the folders that this start made, if it wrote nothing else."""
        if not distributed.is_main() or self.starts.exists():
            return
        with suppress(OSError):
            if self._has_lock and not any(p.name != "run.lock" for p in self.path.iterdir()):
                (self.path / "run.lock").unlink()
            for folder in self._made:
                folder.rmdir()  # which fails where anything is in it

    def is_own(self) -> bool:
        """Whether the last that wrote here was begun by this very command."""
        try:
            *_, last = self.starts.read_text().splitlines()
            return bool(json.loads(last)["command"] == sys.argv)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    @_writing
    def open(self, config: Config, first_step: int) -> None:
        """Start the log files, after those of an earlier part of the same run."""
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
        with self.starts.open("a") as record:  # first: it tells that config.yaml is a run's
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
        """Those of a validation, as PNG in a folder of its own and to the trackers."""
        folder = pictures_folder(self.path, epoch)
        for name, picture in pictures.items():
            save_picture(picture, folder / f"{name}.png")
        for tracker in self._trackers:
            tracker.pictures({f"pictures/{name}": p for name, p in pictures.items()}, step)

    def save(self, state: dict[str, Any], history: list[dict[str, Any]]) -> None:
        """Write the latest checkpoint and the history it holds, beside the training.

        Returns when all is copied; raises `UserError` when the one before could not be written.
        """
        if not distributed.is_main():
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
        write_atomically(self.metrics, lambda file: file.write(lines))

    def settle(self) -> None:
        """Wait until all is written: data workers should not be forked off a writing process."""
        self._background.wait()

    def keep_best(self, best: dict[str, dict[str, float]], epoch: int) -> None:
        """Where the latest checkpoint (of `epoch`) is a network's best one, name it so, as soon as
        it is written."""
        for name, score in best.items():
            if distributed.is_main() and score["epoch"] == epoch:
                link = functools.partial(link_atomically, self.latest, self.best(name))
                self._background.then(link)

    def close(self) -> None:
        """End the log files; raises `UserError` when the last checkpoint could not be written."""
        try:
            self._background.wait()
        finally:
            self._close_logs()

    def _close_logs(self) -> None:
        for tracker in self._trackers:
            with suppress(OSError):  # a full disk, which has been said
                tracker.close()
        for handler in [h for h in logger.handlers if isinstance(h, logging.FileHandler)]:
            logger.removeHandler(handler)
            with suppress(OSError):
                handler.close()


def pictures_folder(run: Path, epoch: int) -> Path:
    """The pictures of the validation after an epoch, counted from 1."""
    return run / "pictures" / f"epoch_{epoch:03}"


class Background:
    """A thread that does one task after the other.

    After one that failed it does no more, and `wait` raises the error.  The process does not end
    before the last one is done.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._last: Future[None] | None = None

    def then(self, task: Callable[[], None]) -> None:
        before = self._last

        def after_that() -> None:
            if before is not None:
                before.result()
            task()

        self._last = self._thread.submit(after_that)

    def wait(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            last.result()


def state_to_resume(folder: RunDir, resume: str) -> tuple[Any, Path] | None:
    """Return the content and the path of the checkpoint to continue from, if there is one.

    `never` and a path are how a run begins: a restart goes on from its own last checkpoint.
    Raises `UserError` when a new run would overwrite what is in the folder, when the named
    checkpoint is missing, and when none that is there can be read.
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
