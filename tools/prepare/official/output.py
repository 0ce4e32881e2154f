"""Output folder: each file is whole or missing, and no file of a user is overwritten."""

import filecmp
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.prepare.official.plan import Task
from util.errors import UserError
from util.io import DAY, remove_partials, replacing

RECORD = "prepared.tsv"  # lines: file, its size in bytes, the download it was made from


class Root:
    """A dataset's folder and the record of the files made there.

    A file that is recorded, of the recorded size and from the same download is finished. Any other
    file that is there stays: with the content that would be written it counts as made.
    """

    def __init__(self, path: Path):
        self.path = path
        self._made: dict[str, tuple[str, str]] = {}
        self._cleaned: set[Path] = set()
        with self._writable():
            path.mkdir(parents=True, exist_ok=True)
            text = self._record.read_text(errors="replace") if self._record.exists() else ""
            if text and not text.endswith("\n"):  # interrupted within a line
                self._append("\n")
        for line in text.splitlines():
            target, _, made = line.partition("\t")
            size, _, origin = made.partition("\t")
            self._made[target] = (size, origin)

    @property
    def _record(self) -> Path:
        return self.path / RECORD

    def has(self, task: Task) -> bool:
        """Return whether the file is finished; False where only a comparison can tell."""
        made = self._made.get(task.target)
        if made is None:
            return False
        try:
            size = (self.path / task.target).stat().st_size
        except OSError:
            return False
        return made == (str(size), task.member.archive.title)

    def make(self, task: Task, content: bytes | Path) -> None:
        """Put a file in its place: bytes are written, a path is linked or else copied.

        Raises `UserError` when another file is there.
        """
        path = self.path / task.target
        with self._writable():
            if not os.path.lexists(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.parent not in self._cleaned:
                    self._cleaned.add(path.parent)
                    remove_partials(path.parent, idle=DAY)
                _write(path, content)
            elif not _same(path, content):
                raise UserError(
                    f"{path}: is there and differs from the file of {task.member.archive.title}; "
                    "move it away or choose another --root"
                )

    def record(self, task: Task) -> None:
        """Note that a file is finished."""
        with self._writable():
            size = (self.path / task.target).stat().st_size
            self._append(f"{task.target}\t{size}\t{task.member.archive.title}\n")

    def _append(self, text: str) -> None:
        with self._record.open("a") as file:
            file.write(text)

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be written ({error}); fix that and start the same command "
                "again, it continues"
            ) from None


def _write(path: Path, content: bytes | Path) -> None:
    """Write a file under a temporary name first, so that a file of its name is whole."""
    with replacing(path) as partial:
        if isinstance(content, bytes):
            partial.write_bytes(content)
        else:
            try:
                os.link(content, partial)
            except OSError:  # another file system, or one without hard links
                shutil.copyfile(content, partial)


def _same(path: Path, content: bytes | Path) -> bool:
    if not path.is_file():
        return False
    if isinstance(content, bytes):
        return path.stat().st_size == len(content) and path.read_bytes() == content
    return path.samefile(content) or filecmp.cmp(path, content, shallow=False)
