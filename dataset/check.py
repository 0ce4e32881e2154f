"""What is wrong with lists and files, found before training starts."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from dataset.files import image_size, open_image
from dataset.lists import Lists, Sample, SampleList, read_list
from dataset.sets import open_pair, size_mismatch
from util.config import Data
from util.errors import UserError

MAX_HEADERS = 5000
T = TypeVar("T")


def read_lists(data: Data, unlabeled: bool) -> Lists:
    """Read the lists that the config names and check them against each other.

    Raises `UserError` for whatever `read_list` finds and for an image that stands in two of them.
    """
    train = read_list(_named(data.labeled, "labeled"), masks=True)
    extra = SampleList(Path(), [])
    if unlabeled:
        extra = read_list(_named(data.unlabeled, "unlabeled"), masks=False)
    val = read_list(data.val, masks=True)
    first: dict[str, tuple[Path, int]] = {}
    for listed in (train, extra, val):
        for sample in listed.samples:
            path, line = first.setdefault(sample.image, (listed.path, sample.line))
            if path != listed.path:
                raise UserError(
                    f"{listed.path} line {sample.line}: '{sample.image}' is also in {path} line "
                    f"{line}; remove it from one of them"
                )
    return Lists(train, extra, val)


def _named(path: Path | None, kind: str) -> Path:
    if path is None:
        raise UserError(
            f"no list of {kind} images: give --{kind}-id-path or set data.{kind} in the config"
        )
    return path


def check_files(data: Data, *lists: SampleList) -> None:
    """Every file exists; headers of labelled images agree with their masks; a sample decodes.

    Raises `UserError` naming the list, its line and the file.
    """
    for path, samples in lists:
        _check_existence(path, data.root, samples)
        if samples and samples[0].mask:
            _each(_headers_agree, path, _spread(samples, MAX_HEADERS), data)
        _each(_decodes, path, _spread(samples, data.check_samples), data)


def _check_existence(path: Path, root: Path, samples: list[Sample]) -> None:
    """One look into each folder instead of one at each file."""
    folders: dict[str, set[str]] = {}
    for sample in samples:
        for file in (sample.image, sample.mask):
            if file is None:
                continue
            folder, name = os.path.split(file)
            if folder not in folders:
                folders[folder] = _names(root / folder)
            if name not in folders[folder]:
                raise UserError(f"{path} line {sample.line}: {root / file}: no such file")


def _names(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set()


def _headers_agree(sample: Sample, data: Data) -> None:
    assert sample.mask is not None
    image, mask = image_size(data.root / sample.image), image_size(data.root / sample.mask)
    if image != mask:
        raise size_mismatch(data.root, sample, image, mask)


def _decodes(sample: Sample, data: Data) -> None:
    if sample.mask:
        open_pair(data.root, sample, len(data.classes), data.reduce_zero_label)
    else:
        open_image(data.root / sample.image)


def _each(
    check: Callable[[Sample, Data], None], path: Path, samples: Iterable[Sample], data: Data
) -> None:
    """Run a check over samples in threads; the first failing line is reported."""

    def located(sample: Sample) -> None:
        try:
            check(sample, data)
        except UserError as error:
            raise UserError(f"{path} line {sample.line}: {error}") from None

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(located, samples):
            pass


def _spread(samples: list[T], count: int) -> list[T]:
    """At most `count` of them, evenly spread."""
    if len(samples) <= count:
        return samples
    return [samples[i * len(samples) // count] for i in range(count)]
