"""List files: one sample a line, `image mask` or `image` alone (or `image None`)."""

from pathlib import Path
from typing import NamedTuple

from util.errors import UserError


class Sample(NamedTuple):
    """One line of a list; paths are relative to the dataset's root."""

    image: str
    mask: str | None
    line: int


class SampleList(NamedTuple):
    """A list file and what it lists."""

    path: Path
    samples: list[Sample]


class Lists(NamedTuple):
    """The lists of a run; without unlabelled images, that one is empty."""

    labeled: SampleList
    unlabeled: SampleList
    val: SampleList


def read_list(path: Path, masks: bool) -> SampleList:
    """The samples of a list; with `masks`, each line must name one.

    A tab separates paths that contain spaces.  Raises `UserError` for a list that is missing,
    empty or repeats an image, a line without its mask or with too many parts, a path that leaves
    the root.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such list") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from None
    samples = [
        _parse(line, number, path, masks)
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip()
    ]
    if not samples:
        raise UserError(f"{path}: the list is empty; expected one image a line")
    seen: dict[str, int] = {}
    for sample in samples:
        first = seen.setdefault(sample.image, sample.line)
        if first != sample.line:
            raise UserError(
                f"{path} line {sample.line}: '{sample.image}' stands in line {first} already"
            )
    return SampleList(path, samples)


def _parse(line: str, number: int, path: Path, masks: bool) -> Sample:
    parts = [part.strip() for part in line.split("\t")] if "\t" in line else line.split()
    parts = [part for part in parts if part]
    if len(parts) > 2:
        raise UserError(
            f"{path} line {number}: {len(parts)} parts, expected 'image mask'; separate paths "
            "that contain spaces by a tab"
        )
    mask = parts[1] if len(parts) == 2 and parts[1] != "None" else None
    if masks and mask is None:
        raise UserError(f"{path} line {number}: '{parts[0]}' has no mask; expected 'image mask'")
    for part in parts:
        if Path(part).is_absolute() or ".." in Path(part).parts:
            raise UserError(
                f"{path} line {number}: '{part}' leads out of data.root; use a path below it"
            )
    return Sample(parts[0], mask if masks else None, number)
