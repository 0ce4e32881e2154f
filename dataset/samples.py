"""Samples (an image or a pair, and its mask), and the lines of split files that name them.

A line is `image mask`, `image` or `image None`; of pairs `first second mask`, `first second`, or a
name that is in three folders. A tab separates paths that contain spaces.
"""

import os
import re
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from dataset.image_files import IMAGE_SUFFIXES
from util.config.data import Pair, PairFolders
from util.errors import UserError

NO_IMAGE = "names no image file; expected a path that ends in .jpg, .png or the like"
"""Message for a line that is not quoted: `data.labeled` in a stranger's config may name any
file."""


class Origin(NamedTuple):
    """A split file or an image folder, and the root that its paths are relative to."""

    path: Path
    root: Path
    folders: PairFolders | None = None
    """Folders below the root, where a line is a file name in each of them."""

    def where(self, line: int) -> str:
        return f"{self.path} line {line}" if line else str(self.path)


class Sample(NamedTuple):
    """A line of a split file; paths are relative to the root of its origin."""

    image: str
    mask: str | None
    line: int
    """Line number; 0 for a sample from a folder."""
    origin: Origin
    second: str | None = None
    """The later image of a pair."""

    @property
    def where(self) -> str:
        return self.origin.where(self.line)

    @property
    def image_file(self) -> Path:
        return self.origin.root / self.image

    @property
    def image_files(self) -> list[Path]:
        """Files of all dates, the earlier one first."""
        return [self.origin.root / name for name in (self.image, self.second) if name is not None]

    @property
    def mask_file(self) -> Path:
        assert self.mask is not None
        return self.origin.root / self.mask

    @property
    def files(self) -> list[Path]:
        """Images of all dates and the mask, if there is one."""
        return [*self.image_files, self.mask_file] if self.mask else self.image_files


class Samples(Sequence[Sample]):
    """Sequence of samples, packed into a few buffers.

    Data workers share the buffers; a list of objects would be copied into each worker, since
    reading an object writes its reference count.
    """

    def __init__(self, samples: Sequence[Sample] = ()):
        origins = {
            origin: str(n) for n, origin in enumerate(dict.fromkeys(s.origin for s in samples))
        }
        self._origins = list(origins)
        fields = (
            (s.image, s.mask or "", s.second or "", str(s.line), origins[s.origin]) for s in samples
        )
        # No path contains a zero byte; file names may be invalid UTF-8.
        texts = ["\0".join(row).encode("utf-8", "surrogateescape") for row in fields]
        self._text = b"".join(texts)
        self._ends = array("q", accumulate(map(len, texts), initial=0))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: Any) -> Any:
        """Return the sample at an index, or a list for a slice."""
        chosen = range(len(self))[index]
        return self._sample(chosen) if isinstance(chosen, int) else [*map(self._sample, chosen)]

    def __iter__(self) -> Iterator[Sample]:
        return map(self._sample, range(len(self)))

    def _sample(self, index: int) -> Sample:
        text = self._text[self._ends[index] : self._ends[index + 1]]
        image, mask, second, line, origin = text.decode("utf-8", "surrogateescape").split("\0")
        return Sample(image, mask or None, int(line), self._origins[int(origin)], second or None)


def parse_line(line: str, number: int, masks: bool, pair: Pair | None, origin: Origin) -> Sample:
    """Return the sample of a line.

    Raises `UserError` for a missing mask or second image, for too many parts, and for a path that
    leaves the root.
    """
    if origin.folders is not None:  # data.pair names three folders
        (name,) = _split(line, ["name"])
        folders = origin.folders.first, origin.folders.second, origin.folders.masks
        first, second, mask = ((folder / name).as_posix() for folder in folders)
        return Sample(first, mask if masks else None, number, origin, second)
    columns = ["image", "mask"] if pair is None else ["first", "second", "mask"]
    first, *others = _split(line, columns)
    is_whole = len(others) == len(columns) - 1
    mask_path = others[-1] if is_whole and others[-1] != "None" else None
    if pair is not None and not others:
        raise UserError(f"'{first}' has no second image; expected '{' '.join(columns)}'")
    if masks and mask_path is None:
        raise UserError(f"'{first}' has no mask; expected '{' '.join(columns)}'")
    second_path = others[0] if pair is not None else None
    return Sample(first, mask_path if masks else None, number, origin, second_path)


def _split(line: str, columns: list[str]) -> list[str]:
    """Return the paths of a line; raises `UserError` as `parse_line` does."""
    parts = [part.strip() for part in line.split("\t")] if "\t" in line else line.split()
    parts = [part for part in parts if part]
    if len(parts) > len(columns):
        raise UserError(
            f"{len(parts)} parts, expected '{' '.join(columns)}'. Fix: separate paths that contain "
            "spaces by a tab"
        )
    for part in parts:
        if leaves_folder(part):
            raise UserError(
                f"'{part}' leads out of the data's root or is absolute; expected a path relative "
                "to data.root"
            )
    if "\t" not in line and not mentions_image(parts[0]) and mentions_image(parts[-1]):
        raise UserError(
            f"'{line.strip()}': the first word is not an image, but the last is; expected 'image "
            "mask'. Fix: separate paths that contain spaces by a tab, and end a line without a "
            "mask by a tab"
        )
    return parts


def leaves_folder(path: str) -> bool:
    """Return True if a path leaves the folder that it is relative to."""
    return os.path.isabs(path) or (".." in path and ".." in Path(path).parts)


def volume_of(image: str, pattern: str) -> str:
    """Return the name of an image's volume, the first group of `evaluation.volume_pattern`; ""
    where the pattern finds none."""
    match = re.search(pattern, image)
    return (match[1] or "") if match else ""


def mentions_image(line: str) -> bool:
    """Return True if a word of a line has the suffix of an image; else messages do not quote it."""
    return any(part.lower().endswith(tuple(IMAGE_SUFFIXES)) for part in line.split())
