"""Samples: an image or a pair, its mask, and its line in a list."""

from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from util.config.data import PairFolders


class Origin(NamedTuple):
    """A list file, or a folder of images, and what the paths of its samples are relative to."""

    path: Path
    root: Path
    folders: PairFolders | None = None
    """Folders below the root, where a line is a file name in each of them."""

    def where(self, line: int) -> str:
        return f"{self.path} line {line}" if line else str(self.path)


class Sample(NamedTuple):
    """A line of a list; paths are relative to the root of its origin."""

    image: str
    mask: str | None
    line: int
    """Line number; 0 for a sample from a folder."""
    origin: Origin
    second: str | None = None
    """The later image, where a sample is a pair."""

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


class Samples(Sequence[Sample]):
    """Sequence of samples, packed into a few buffers.

    Data workers share the buffers; a list of objects would be copied into each worker, since
    reading an object writes its reference count.
    """

    def __init__(self, samples: Sequence[Sample] = ()):
        texts = [_pack(sample) for sample in samples]
        self._text = b"".join(texts)
        self._ends = array("q", accumulate(map(len, texts), initial=0))
        self._lines = array("q", (sample.line for sample in samples))
        self._origins = list(dict.fromkeys(sample.origin for sample in samples))
        self._origin = array("H", (self._origins.index(sample.origin) for sample in samples))

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: Any) -> Any:
        """Return the sample at an index, or a list for a slice."""
        place = range(len(self))[index]
        return self._sample(place) if isinstance(place, int) else [*map(self._sample, place)]

    def __iter__(self) -> Iterator[Sample]:
        return map(self._sample, range(len(self)))

    def _sample(self, place: int) -> Sample:
        text = self._text[self._ends[place] : self._ends[place + 1]]
        return _unpack(text, self._lines[place], self._origins[self._origin[place]])


def _pack(sample: Sample) -> bytes:
    """Join the paths of a sample by zero bytes, which no path contains."""
    text = "\0".join((sample.image, sample.mask or "", sample.second or "")).rstrip("\0")
    return text.encode("utf-8", "surrogateescape")  # file names may be invalid UTF-8


def _unpack(text: bytes, line: int, origin: Origin) -> Sample:
    image, mask, second, *_ = [*text.decode("utf-8", "surrogateescape").split("\0"), "", ""]
    return Sample(image, mask or None, line, origin, second or None)
