"""Files written completely or not at all."""

import csv
import hashlib
import io
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from util.errors import UserError, printable

FORMULA = re.compile(r"'*(?=[=+\-@])(?![+-][\w./-]*$)")
"""The start of a text that a spreadsheet could take for a formula, after any apostrophes; no name
such as -73.9_40.7.png."""
LONGEST_NAME = 255
"""Bytes that file systems give to a name."""
SECONDS_PER_DAY = 24 * 3600
"""A temporary file counts as left behind after a day without a write, where no lock tells whether
its process still runs."""


def write_atomically(
    path: Path, write: Callable[[IO[bytes]], object], previous: Path | None = None
) -> None:
    """Write a temporary file, then rename it: `path` is always the old or the new file, complete.

    The old file becomes `previous`, if given. Raises `UserError` when the folder cannot be written
    or the disk is full.
    """
    try:
        with replacing(path) as partial:
            with partial.open("xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            if previous is not None and path.exists():
                _keep_as(previous, path)
    except (OSError, RuntimeError) as error:
        cause: BaseException = error
        if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
            cause = error.__context__  # torch raises an obscure error after that of a full disk
        kept = "; the previous one is kept" if path.exists() else ""
        raise UserError(f"{path}: cannot be written ({cause}){kept}") from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path` and rename it to `path` at the end.

    The temporary name is new each time, so processes that write the same file do not share it.
    After an error the temporary file is removed and `path` is left as it was.
    """
    partial = partial_of(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        with suppress(OSError):  # renamed, or never created
            partial.unlink(missing_ok=True)


def partial_of(path: Path) -> Path:
    """Return a new temporary path in the folder of `path`; it starts with the name of `path`, or
    with its hash where the name would be too long."""
    end = f".{secrets.token_hex(4)}.partial"
    name = path.name + end
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(path.name)).hexdigest() + end
    return path.with_name(name)


def remove_partials(folder: Path, idle: float) -> None:
    """Remove temporary files that killed processes left in a folder.

    `idle`: seconds since the last change, from which on a file counts as left behind.
    """
    for partial in folder.glob(f"*.{8 * '[0-9a-f]'}.partial"):
        with suppress(OSError):  # removed by its process, or no permission
            if time.time() - partial.stat().st_ctime >= idle:
                partial.unlink()


def _keep_as(previous: Path, path: Path) -> None:
    """Link `previous` to the file at `path`, so that `path` always exists."""
    try:
        previous.unlink(missing_ok=True)
        os.link(path, previous)
    except OSError:  # a file system without hard links; a copy would need more room
        path.replace(previous)


def make_folder(path: Path) -> None:
    """Make a folder and those above it; raises `UserError` where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be made ({error})") from None


def write_text(path: Path, text: str) -> None:
    """Write a report completely or not at all. Undecodable characters of file names are escaped;
    links are followed; pipes and devices are written directly.

    Raises `UserError` when it cannot be written.
    """
    content = text.encode("utf-8", "backslashreplace")
    if not os.path.islink(path) and (os.path.isfile(path) or not os.path.exists(path)):
        write_atomically(path, lambda file: file.write(content))
        return
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error})") from None


def write_once(path: Path, content: bytes) -> None:
    """Write a file completely or not at all, with its folders; keep one with the same content.

    Raises `UserError` for a file with other content, and where it cannot be written.
    """
    try:
        existing = path.read_bytes()
    except FileNotFoundError:
        make_folder(path.parent)
        write_atomically(path, lambda file: file.write(content))
        return
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    if existing != content:
        raise UserError(f"{path}: exists with other content. Fix: move it away")


def require_new(path: Path) -> None:
    """Raise `UserError` before the work for a path of `--out` where anything exists."""
    if os.path.lexists(path):
        raise UserError(f"--out {path}: exists already. Fix: choose another name")


def require_folder_of(path: Path, option: str = "") -> None:
    """Raise `UserError` before the work for a file that an option names in a missing folder."""
    if not path.parent.is_dir():
        raise UserError(f"{option} {path}: its folder does not exist. Fix: make it first".lstrip())


def check_target(path: Path, command: str, option: str = "") -> None:
    """Raise `UserError` before the work for a file that cannot be written, or that holds anything
    but an earlier report of `command`; pipes, devices and empty files may be written."""
    require_folder_of(path, option)
    begin = path.read_bytes()[:500] if os.path.isfile(path) else b""
    if os.path.isdir(path) or (begin and command.encode() not in begin):
        name = f"{option} {path}".lstrip()
        raise UserError(
            f"{name}: exists and is not a report of this command. Fix: choose another file"
        )


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as lines of comma-separated values.

    Texts are `printable`, and an apostrophe precedes one that a spreadsheet could take for a
    formula; `csv_rows` removes it.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([*map(_cell, row)] for row in rows)
    return text.getvalue()


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = printable(value)
    try:
        float(text)  # a formatted number
        return text
    except ValueError:
        return f"'{text}" if FORMULA.match(text) else text


def csv_rows(lines: Iterable[str]) -> list[list[str]]:
    """Read rows that `csv_text` wrote; raises `csv.Error`."""
    return [
        [cell[1:] if cell[:1] == "'" and FORMULA.match(cell) else cell for cell in row]
        for row in csv.reader(lines)
    ]


def file_state(path: Path) -> tuple[str, int, int]:
    """Return path (links resolved), bytes and time of change of a file, which tell whether it is
    another one; raises `OSError` for a missing file."""
    status = path.stat()
    return os.path.realpath(path), status.st_size, status.st_mtime_ns


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, read block by block."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
