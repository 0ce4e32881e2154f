"""Paths that commands and configs name: found from any folder, suggested when misspelt."""

import difflib
import os
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from util.parser import did_you_mean

REPOSITORY = Path(__file__).resolve().parent.parent


def expand_home(path: Path) -> Path:
    """Return a path with the home folder in place of `~`, which a shell leaves inside a word."""
    with suppress(RuntimeError):  # no such user: a folder whose name begins with ~
        return path.expanduser()
    return path


def find_path(path: Path) -> Path:
    """Return where a path is: a relative one in the working directory, or else in the repository,
    so that `configs/` and `data/` are found from any folder."""
    path = expand_home(path)
    in_repository = REPOSITORY / path
    # os.path.exists, unlike Path.exists, is also False for impossible paths.
    is_only_there = not os.path.exists(path) and os.path.exists(in_repository)
    return in_repository if is_only_there else path


def nfc(name: str) -> str:
    """Return a name with composed accents; macOS may list it with decomposed ones."""
    return unicodedata.normalize("NFC", name)


def from_here(path: Path) -> Path:
    """Return a path relative to the working directory if it is inside, else as it is."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def common_root(files: Iterable[Path]) -> Path:
    """Return the folder that contains all files, as `from_here` shows it."""
    return from_here(Path(os.path.commonpath([os.path.abspath(file.parent) for file in files])))


def nearest_hint(path: Path) -> str:
    """Return the end of a message about a missing path: "; did you mean 'PATH'?" if one of a
    similar name exists, else "". Of labeled.txt and unlabeled.txt, neither is a misspelt other."""
    found = Path(path.anchor)
    for part in path.parts[bool(path.anchor) :]:
        if not os.path.exists(found / part):
            try:
                names = difflib.get_close_matches(part, os.listdir(found), n=1)
            except (OSError, ValueError):
                return ""
            if not names or _has_prefix(part, names[0]):
                return ""
            part = names[0]
        found /= part
    return did_you_mean([str(found)]) if os.path.exists(found) and found != path else ""


def _has_prefix(name: str, other: str) -> bool:
    """Return True if one name is the other after two or more further characters."""
    short, long = sorted((Path(name).stem, Path(other).stem), key=len)
    return long.endswith(short) and len(long) - len(short) > 1
