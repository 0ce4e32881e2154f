"""Split files: read them, collect all faults, and write them."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from dataset.protocols import Fingerprint, fetch_hint, fingerprint
from dataset.samples import NO_IMAGE, Origin, Sample, Samples, mentions_image, parse_line
from util.config.data import Pair, PairFolders
from util.errors import UserError, and_others, counted
from util.io import write_once
from util.log import logger
from util.paths import nearest_hint, nfc

MAX_LOGGED = 100
"""Faults that are logged one by one."""


class Split(NamedTuple):
    """Samples of a split file, of an image folder, or of several of these."""

    name: str
    samples: Samples


class Splits(NamedTuple):
    """Splits of a run; `unlabeled` is empty for methods without unlabelled images."""

    labeled: Split
    unlabeled: Split
    val: Split


class Fault(NamedTuple):
    """A faulty line of a split file, or a faulty image in a folder."""

    origin: Origin
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.origin.where(self.line)}: {self.message}"


Scan = tuple[list[Sample], list[Fault]]
"""Valid samples of a source, and the faults of the others."""


def read_split_file(path: Path, masks: bool) -> Split:
    """Read a split file of single images; with `masks`, each line must name a mask.

    Raises `UserError` for a missing or empty file, a repeated image and a faulty line.
    """
    samples, faults = scan_split_file(Origin(path, Path()), masks, None)
    raise_first_fault(faults)
    return Split(str(path), Samples(samples))


def raise_first_fault(faults: Sequence[Fault]) -> None:
    """Log the faults if there are several; raise `UserError` with the first one."""
    if len(faults) > 1:
        for fault in faults[:MAX_LOGGED]:
            logger.warning(str(fault))
    if faults:
        raise UserError(f"{faults[0]}{and_others(faults)}")


def scan_split_file(origin: Origin, masks: bool, pair: Pair | None) -> Scan:
    """Return the samples of valid lines, and the faults of the others.

    Raises `UserError` for a split file that is missing, empty or not text.
    """
    if isinstance(pair, PairFolders):
        origin = origin._replace(folders=pair)
    lines: dict[str, int] = {}
    samples, faults = [], []
    names = cache(_names_by_form)
    for number, line in enumerate(_read_text(origin.path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            sample = parse_line(line, number, masks, pair, origin)
            if not line.isascii():
                sample = _as_stored(sample, names)
            if (first := lines.setdefault(sample.image, number)) != number:
                raise UserError(f"'{sample.image}' is in line {first} already")
            samples.append(sample)
        except UserError as error:
            faults.append(Fault(origin, number, str(error) if mentions_image(line) else NO_IMAGE))
    return samples, faults


def _as_stored(sample: Sample, names: Callable[[Path], dict[str, str]]) -> Sample:
    """Return a sample with accents encoded as in its file names (macOS stores NFD)."""

    def stored(path: str | None) -> str | None:
        parts = [] if path is None else path.split("/")
        for depth, part in enumerate(parts):
            if not part.isascii():
                known = names(sample.origin.root / "/".join(parts[:depth]))
                parts[depth] = known.get(part) or known.get(nfc(part), part)
        return "/".join(parts) or None

    image = stored(sample.image) or sample.image
    return sample._replace(image=image, mask=stored(sample.mask), second=stored(sample.second))


def _names_by_form(folder: Path) -> dict[str, str]:
    """Map each file name, and its NFC form where no file has that name, to the stored name; empty
    for an unreadable folder."""
    try:
        names = os.listdir(folder)
    except OSError:
        return {}
    return {nfc(name): name for name in names} | {name: name for name in names}


def missing_split_file_error(path: Path) -> UserError:
    """Return the error for a missing split file, with a command or name to use."""
    return UserError(f"{path}: no such split file{fetch_hint(path, nearest_hint(path))}")


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
        if b"\0" in content:
            raise UserError(
                f"{path}: cannot be read as text: it holds zero bytes, as UTF-16 does; expected "
                "UTF-8. Fix: save it as UTF-8 (iconv -f UTF-16 -t UTF-8)"
            )
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise missing_split_file_error(path) from None
    except IsADirectoryError:
        raise UserError(
            f"{path}: a folder, expected a split file. Fix: name folders as "
            "{images: FOLDER, masks: FOLDER}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from None
    if not text.strip():
        raise UserError(f"{path}: the split file is empty; expected one image a line")
    return text


def sample_line(image: str, *others: str | None) -> str:
    """Return the line of an image and the other paths of its sample.

    Raises `UserError` for a file name that no split file can hold.
    """
    paths = [image, *(path for path in others if path is not None)]
    for path in paths:
        is_utf8 = path.isascii() or not any("\ud800" <= c <= "\udfff" for c in path)
        if path != path.strip() or "\t" in path or len(path.splitlines()) != 1 or not is_utf8:
            raise UserError(
                f"{path!r}: a split file cannot hold this name. Fix: rename the file "
                "(UTF-8, no tabs, line breaks, or spaces at its ends)"
            )
    if any(len(path.split()) > 1 for path in paths):
        return "\t".join(paths) if len(paths) > 1 else f"{image}\t"
    return " ".join(paths)


def line_below(root: Path, files: Iterable[Path]) -> str:
    """Return the line of the files of a sample, which are below `root`; raises as `sample_line`."""
    return sample_line(*(Path(os.path.relpath(file, root)).as_posix() for file in files))


def line_paths(sample: Sample) -> list[str]:
    """Return the paths of a sample's line: image(s) and mask, or the name that its files share."""
    if (folders := sample.origin.folders) is not None:
        return [PurePosixPath(sample.image).relative_to(folders.first.as_posix()).as_posix()]
    return [path for path in (sample.image, sample.second, sample.mask) if path is not None]


def split_identity(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return the number of images, and the SHA-256 of their lines as `fingerprint` computes it."""
    return {"images": len(samples), "sha256": fingerprint(_content(samples)).sha256}


def split_order(samples: Sequence[Sample]) -> str:
    """Return a digest of the lines that, unlike the identity, depends on their order."""
    return hashlib.sha256(_content(samples)).hexdigest()[:12]


def shuffle_key(name: str, seed: int) -> bytes:
    """Return the sort key of an image in a draw: a hash, as generators differ between versions."""
    return hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogateescape")).digest()


def _content(samples: Sequence[Sample]) -> bytes:
    lines = "".join(f"{' '.join(line_paths(sample))}\n" for sample in samples)
    return lines.encode("utf-8", "surrogateescape")


def split_file_text(lines: Sequence[str]) -> bytes:
    """Return the content of a split file."""
    return "".join(f"{line}\n" for line in lines).encode()


def write_split_files(files: Mapping[Path, Sequence[str]]) -> list[str]:
    """Write split files, each whole or not at all; return a remark on each.

    A file with the same lines in any order is kept. Raises `UserError` before anything is written
    for a file with other lines, and for a folder that cannot be written.
    """
    texts = {path: split_file_text(lines) for path, lines in files.items()}
    is_kept = {path: holds_split(path, fingerprint(text)) for path, text in texts.items()}
    for path, text in texts.items():
        if not is_kept[path]:
            write_once(path, text)
    return [
        f"{path}: {counted(len(lines), 'entry', 'entries')}, "
        f"{'already there' if is_kept[path] else 'written'}"
        for path, lines in files.items()
    ]


def holds_split(path: Path, expected: Fingerprint) -> bool:
    """Return True if a file holds the expected lines; raises `UserError` for other lines."""
    try:
        found = fingerprint(path.read_bytes())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    if found == expected:
        return True
    raise UserError(
        f"{path}: exists with other lines (found {found}; expected {expected}). Fix: move it away, "
        "or choose another folder"
    )
