"""Fetch published lists, and recognise them on disk."""

import os
import urllib.request
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from dataset.protocols import PREPARED, Fingerprint, PublishedSplitFile, fingerprint, read_protocols
from dataset.samples import leaves_folder
from dataset.split_files import holds_split, write_split_files
from util.errors import UserError, join_first, reason

GITHUB_FILES = "https://raw.githubusercontent.com"
MAX_NAMED = 12
"""Partitions that a message names."""
TIMEOUT_SECONDS = 30.0
MAX_BYTES = 2**26
"""Most bytes of a list."""


def fetch(
    lists: Sequence[PublishedSplitFile], folder: Path, clone: Path | None = None
) -> Iterator[str]:
    """Download lists below `folder`, or copy them from a clone; yield a line about each.

    Raises `UserError`, before anything is written, for lists that training cannot use and if
    another list exists; and for content that differs from the published list.
    """
    if prepared := next((p.dataset for p in lists if p.dataset in PREPARED), None):
        raise UserError(
            f"{prepared}: its published lists name files that training does not read. Fix: write "
            f"those of the prepared images with python -m tools.prepare {prepared}"
        )
    wanted = [p for p in lists if not holds_split(folder / p.file, p.fingerprint)]
    in_clone = _find_in_clone(clone, wanted) if clone and wanted else {}
    for p in lists:
        line = f"{folder / p.file}: {p.fingerprint.entries} entries"
        if p not in wanted:
            yield f"{line}, already there"
            continue
        text = in_clone[p.fingerprint] if clone else _download(p)
        write_split_files({folder / p.file: text.decode().splitlines()})
        yield f"{line}, from {clone or p.sources[0]}"


def _find_in_clone(clone: Path, wanted: Sequence[PublishedSplitFile]) -> dict[Fingerprint, bytes]:
    """Find wanted lists by content below a clone; raises `UserError` if one is missing."""
    if not clone.is_dir():
        raise UserError(f"--from {clone}: no such folder")
    by_path: dict[Path, bytes] = {}
    for file in clone.rglob("*.txt"):
        with suppress(OSError):
            by_path[file] = file.read_bytes()
    contents = {fingerprint(text): text for text in by_path.values()}
    lacking = [p for p in wanted if p.fingerprint not in contents]
    for p in lacking:
        if (other := by_path.get(file := clone / p.path)) is not None:
            raise _unlike_published_error(file, fingerprint(other), p)
    if lacking:
        names = join_first([f"{p.dataset}/{p.name}" for p in lacking], 3)
        sources = " or ".join(dict.fromkeys(source for p in lacking for source in p.sources))
        raise UserError(
            f"--from {clone}: has {len(wanted) - len(lacking)} of {len(wanted)} lists, not {names},"
            f" which {sources} publish; {_known_partitions(contents)}. Fix: name a "
            "clone of these, or ask for fewer lists (DATASET/PARTITION, or --source with the "
            "repository that this is a clone of)"
        )
    return contents


def _known_partitions(found: Collection[Fingerprint]) -> str:
    """Name the published partitions to which lists belong."""
    known = [f"{p.dataset}/{p.partition}" for p in read_protocols() if p.fingerprint in found]
    return f"of published ones it has {join_first(list(dict.fromkeys(known)), MAX_NAMED) or 'none'}"


def _download(published: PublishedSplitFile) -> bytes:
    url = f"{GITHUB_FILES}/{published.sources[0]}/HEAD/{quote(published.path)}"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
            text = answer.read(MAX_BYTES)  # a truncated list has another fingerprint
    except (OSError, HTTPException) as error:
        raise UserError(
            f"{url}: cannot be downloaded ({reason(error)}). Fix: clone "
            f"https://github.com/{published.sources[0]} and name its folder with --from"
        ) from None
    if (found := fingerprint(text)) != published.fingerprint:
        raise _unlike_published_error(url, found, published)
    return text


def _unlike_published_error(
    location: Path | str, found: Fingerprint, published: PublishedSplitFile
) -> UserError:
    return UserError(
        f"{location}: not the published list (found {found}; expected {published.fingerprint}); "
        "nothing is written"
    )


class RecognisedSplitFile(NamedTuple):
    """A split file on disk, compared with the published ones; `differs`: from that of its name."""

    file: Path
    entries: int
    verdict: str
    differs: bool


def verify(folder: Path, target: str) -> list[RecognisedSplitFile]:
    """Compare the lists below `folder` with the published ones.

    `target`: `pascal`, `pascal/92`, `pascal/val`, all lists if empty, or the path of a list. Raises
    `UserError` where there are no lists.
    """
    protocols = read_protocols()
    given = Path(target)
    if given.is_file():
        below = os.path.relpath(given, folder)
        name = given if leaves_folder(below) else Path(below)
        return [_recognise(given, name, protocols)]
    files = sorted(path.relative_to(folder) for path in folder.rglob("*.txt") if path.is_file())
    wanted = [f for f in files if f.with_suffix("").parts[: len(given.parts)] == given.parts]
    if not wanted:
        raise UserError(
            f"{folder / target}: no lists. Fix: get published ones with "
            "python -m tools.splits fetch"
        )
    return [_recognise(folder / file, file, protocols) for file in wanted]


def _recognise(
    path: Path, file: Path, protocols: Sequence[PublishedSplitFile]
) -> RecognisedSplitFile:
    """Compare a list with those of its name, `file` (below splits/), and with all others."""
    try:
        found = fingerprint(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({reason(error)})") from None
    same_name = [p for p in protocols if p.file == file]
    same_content = [p for p in protocols if p.fingerprint == found]
    both = [p for p in same_content if p in same_name]
    differs = bool(same_name) and not both
    verdict = "; ".join(map(str, both or same_content)) or "unknown"
    if differs:
        expected = " or ".join(str(p.fingerprint) for p in same_name)
        verdict = f"differs: {verdict}; found {found}; expected {expected}"
    return RecognisedSplitFile(file, found.entries, verdict, differs)
