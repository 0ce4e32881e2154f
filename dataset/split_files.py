"""List files: one sample a line, `image mask` or `image` alone (or `image None`).

Of pairs, `first second mask` or `first second`, or a name that stands in three folders.
"""

import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from dataset.protocols import Fingerprint, fingerprint, how_to_get
from dataset.samples import Origin, Sample, Samples
from dataset.split_lines import NO_IMAGE, names_image, parse_line
from util.config.data import Pair, PairFolders
from util.errors import UserError, and_others
from util.io import write_once
from util.log import logger
from util.paths import nearest

MAX_SAID = 100
"""Faults that are said one by one."""


class SampleList(NamedTuple):
    """What is in a list file, in a folder of images, or in several of them."""

    name: str
    samples: Samples


class Lists(NamedTuple):
    """The lists of a run; without unlabelled images, that one is empty."""

    labeled: SampleList
    unlabeled: SampleList
    val: SampleList


class Fault(NamedTuple):
    """What is wrong with a line of a list, or with an image of a folder."""

    origin: Origin
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.origin.where(self.line)}: {self.message}"


class Scan(NamedTuple):
    """The good samples of a source, and what is wrong with the others."""

    origin: Origin
    samples: list[Sample]
    faults: list[Fault]


def read_list(path: Path, masks: bool, pair: Pair | None = None) -> SampleList:
    """The samples of a list; with `masks`, each line must name one; `pair`: as `data.pair`.

    A tab separates paths that contain spaces.  Raises `UserError` for a list that is missing,
    empty or repeats an image, a line without its mask or with too many parts, a path that leaves
    the root.
    """
    listed, faults = union([scan_list(Origin(path, Path()), masks, pair)])
    refuse(faults)
    return listed


def union(scans: Sequence[Scan]) -> tuple[SampleList, list[Fault]]:
    """Several sources as one list, and all that is wrong with them."""
    name = " and ".join(str(scan.origin.path) for scan in scans)
    samples = Samples([sample for scan in scans for sample in scan.samples])
    return SampleList(name, samples), [fault for scan in scans for fault in scan.faults]


def refuse(faults: Sequence[Fault]) -> None:
    """Raise `UserError` with the first fault, if there is one, once all of several are said."""
    if len(faults) > 1:
        for fault in faults[:MAX_SAID]:
            logger.warning(str(fault))
    if faults:
        raise UserError(f"{faults[0]}{and_others(faults)}")


def scan_list(origin: Origin, masks: bool, pair: Pair | None) -> Scan:
    """A list's good lines, and the faults of the others.

    Raises `UserError` for a list that is missing, empty or no text.
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
                raise UserError(f"'{sample.image}' stands in line {first} already")
            samples.append(sample)
        except UserError as error:
            faults.append(Fault(origin, number, str(error) if names_image(line) else NO_IMAGE))
    return Scan(origin, samples, faults)


def _as_stored(sample: Sample, names: Callable[[Path], dict[str, str]]) -> Sample:
    """A sample with accents encoded as in the names of its files: macOS takes them apart (NFD)."""

    def stored(path: str | None) -> str | None:
        if path is None or (sample.origin.root / path).exists():
            return path
        folder = Path()
        for part in Path(path).parts:
            known = names(sample.origin.root / folder)
            folder /= known.get(unicodedata.normalize("NFC", part), part)
        return folder.as_posix()

    image = stored(sample.image) or sample.image
    return sample._replace(image=image, mask=stored(sample.mask), second=stored(sample.second))


def _names_by_form(folder: Path) -> dict[str, str]:
    """Names in a folder, by their composed form (NFC); none where it cannot be read."""
    try:
        return {unicodedata.normalize("NFC", name): name for name in os.listdir(folder)}
    except OSError:
        return {}


def no_such_list(path: Path) -> UserError:
    """The error for a list that does not exist: where to get it, or the nearest name."""
    return UserError(f"{path}: no such list{nearest(path) or how_to_get(path)}")


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
                raise UserError(
                    f"{path}: cannot be read as text: it is UTF-16, expected UTF-8. Fix: save "
                    "it as UTF-8 (iconv -f UTF-16 -t UTF-8)"
                )
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise no_such_list(path) from None
    except IsADirectoryError:
        raise UserError(
            f"{path}: a folder, expected a list; the config takes folders as "
            "{images: FOLDER, masks: FOLDER}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from None
    if not text.strip():
        raise UserError(f"{path}: the list is empty; expected one image a line")
    if "\0" in text:
        raise UserError(
            f"{path}: cannot be read as text (it holds zero bytes, as UTF-16 does); "
            "save it as UTF-8"
        )
    return text


def list_line(image: str, *others: str | None) -> str:
    """The line of a sample, as `read_list` reads it: its image, and its mask if there is one.

    Raises `UserError` for a file name that no list can hold.
    """
    paths = [image, *(path for path in others if path is not None)]
    for path in paths:
        if path != path.strip() or "\t" in path or len(path.splitlines()) != 1:
            raise UserError(
                f"{path!r}: a list cannot hold this name; rename the file (no tabs, line breaks, "
                "or spaces at its ends)"
            )
    if any(len(path.split()) > 1 for path in paths):
        return "\t".join(paths) if len(paths) > 1 else f"{image}\t"
    return " ".join(paths)


def listed_paths(sample: Sample) -> list[str]:
    """What the line of a sample names: image and mask, both images and the mask of a pair, or the
    name that its files share."""
    if (folders := sample.origin.folders) is not None:
        return [PurePosixPath(sample.image).relative_to(folders.first.as_posix()).as_posix()]
    return [path for path in (sample.image, sample.second, sample.mask) if path is not None]


def list_identity(samples: Sequence[Sample]) -> dict[str, Any]:
    """Number of images, and the SHA-256 by which `protocols.fingerprint` knows their list."""
    lines = (" ".join(listed_paths(sample)) for sample in samples)
    text = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
    return {"images": len(samples), "sha256": fingerprint(text).sha256}


def list_text(lines: Sequence[str]) -> bytes:
    """The content of a list file."""
    return "".join(f"{line}\n" for line in lines).encode()


def write_lists(lists: Mapping[Path, Sequence[str]]) -> dict[Path, str]:
    """Write list files, each whole or not at all; returns a remark on each.

    One that is there with the same lines, in whatever order, is left as it is.  Raises `UserError`
    before anything is written when one holds other lines, and when a folder cannot be written.
    """
    texts = {path: list_text(lines) for path, lines in lists.items()}
    there = {path: is_there(path, fingerprint(text)) for path, text in texts.items()}
    for path, text in texts.items():
        if not there[path]:
            write_once(path, text)
    return {
        path: f"{path}: {len(lines)} entries, {'already there' if there[path] else 'written'}"
        for path, lines in lists.items()
    }


def is_there(path: Path, expected: Fingerprint) -> bool:
    """Whether a list is there; raises `UserError` when the file holds another one."""
    try:
        found = fingerprint(path.read_bytes())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    if found == expected:
        return True
    raise UserError(
        f"{path}: holds another list already (found {found}; expected {expected}); move it away "
        "or choose another folder"
    )
