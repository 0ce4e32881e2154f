"""Output folder: each file is complete or missing, and no file of a user is overwritten."""

import filecmp
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from util.errors import UserError
from util.io import SECONDS_PER_DAY, remove_partials, replacing

RECORD = "prepared.tsv"
"""Record of the files made: path, size in bytes, name of the download."""


class OutputFolder:
    """A dataset's folder and the record of the files made there.

    A recorded file of the recorded size and download is finished. Any other existing file is kept:
    with the content that would be written, it counts as made.
    """

    def __init__(self, path: Path):
        self.path = path
        self._cleaned: set[Path] = set()
        record = path / RECORD
        with self._writable():
            path.mkdir(parents=True, exist_ok=True)
            text = os.fsdecode(record.read_bytes()) if record.exists() else ""
            if text and not text.endswith("\n"):  # interrupted within a line
                self._append("\n")
        rows = (line.partition("\t") for line in text.splitlines())
        self._made = {target: made for target, _, made in rows}

    def has(self, target: str, download: str) -> bool:
        """Return True for a finished file, by its path below the root and its download; False if
        only a comparison can decide."""
        try:
            size = (self.path / target).stat().st_size
        except OSError:
            return False
        return self._made.get(target) == f"{size}\t{download}"

    def make(self, target: str, content: bytes | Path, download: str) -> None:
        """Write bytes to a file, or link (else copy) an existing file.

        Raises `UserError` if another file is there.
        """
        path = self.path / target
        with self._writable():
            if not os.path.lexists(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.parent not in self._cleaned:
                    self._cleaned.add(path.parent)
                    remove_partials(path.parent, idle=SECONDS_PER_DAY)
                _write(path, content)
            elif not _same(path, content):
                raise UserError(
                    f"{path}: is there and differs from the file of {download}. Fix: move it "
                    "away or choose another --root"
                )

    def record(self, target: str, download: str) -> None:
        """Note that a file is finished."""
        with self._writable():
            size = (self.path / target).stat().st_size
            self._append(f"{target}\t{size}\t{download}\n")

    def _append(self, text: str) -> None:
        with (self.path / RECORD).open("ab") as file:
            file.write(os.fsencode(text))

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be written ({error}). Fix: correct this and repeat the "
                "same command, which continues"
            ) from None


def _write(path: Path, content: bytes | Path) -> None:
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
