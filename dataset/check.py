"""What is wrong with lists and files, found before training starts."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from dataset.files import image_size, open_image
from dataset.lists import Lists, Sample, read_list
from dataset.sets import open_pair, size_mismatch
from util.config import Data
from util.errors import UserError

MAX_HEADERS = 5000
T = TypeVar("T")


def read_lists(data: Data, unlabeled: bool) -> Lists:
    """Read the lists that the config names and check them against each other.

    Raises `UserError` for whatever `read_list` finds and for an image in two of them.
    """
    train = read_list(_named(data.labeled, "labeled"), data.root, masks=True)
    extra = (
        read_list(_named(data.unlabeled, "unlabeled"), data.root, masks=False) if unlabeled else []
    )
    val = read_list(data.val, data.root, masks=True)
    for path, samples in ((data.unlabeled, extra), (data.val, val)):
        known = {sample.image: sample.line for sample in train}
        if path == data.val:
            known |= {sample.image: sample.line for sample in extra}
        for sample in samples:
            if sample.image in known:
                raise UserError(
                    f"{path} line {sample.line}: '{sample.image}' is also in line "
                    f"{known[sample.image]} of a training list; remove it from one of them"
                )
    return Lists(train, extra, val)


def _named(path: Path | None, kind: str) -> Path:
    if path is None:
        raise UserError(
            f"no list of {kind} images: give --{kind}-id-path or set data.{kind} in the config"
        )
    return path


def check_files(data: Data, lists: Lists) -> None:
    """Every file exists; headers of labelled images agree with their masks; a sample decodes.

    Raises `UserError` naming the list, its line and the file.
    """
    for path, samples in zip((data.labeled, data.unlabeled, data.val), lists, strict=True):
        _check_existence(path, data.root, samples)
        if samples and samples[0].mask:
            _each(_headers_agree, path, _spread(samples, MAX_HEADERS), data)
        _each(_decodes, path, _spread(samples, data.check_samples), data)


def _check_existence(path: Path | None, root: Path, samples: list[Sample]) -> None:
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
    check: Callable[[Sample, Data], None], path: Path | None, samples: Iterable[Sample], data: Data
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
