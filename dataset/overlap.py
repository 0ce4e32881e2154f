"""Images or volumes that occur in two splits, or twice in one, or that a training has seen."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from dataset.folders import scan_samples
from dataset.samples import NO_IMAGE, Sample, mentions_image, volume_of
from dataset.split_files import Split, split_identity
from util.config.data import Data
from util.errors import UserError, counted
from util.starts import last_start

USE_IN_TRAINING = {
    "labeled": "whose masks were trained on",
    "val": "which chose the best epoch",
    "unlabeled": "which semi-supervised methods train on",
}
"""Use of the splits in training."""


def refuse_overlaps(*splits: Split) -> None:
    """Raise `UserError` for an image that occurs twice, in one split or in two."""
    for _, _, message in overlaps(splits):
        raise UserError(message)


def overlaps(splits: Sequence[Split]) -> Iterator[tuple[int, int, str]]:
    """Yield split number, line and a message for each image that occurs earlier, in any split,
    under any name or root."""
    location = locator()
    first: dict[str, tuple[int, int]] = {}
    for number, split in enumerate(splits):
        for place, sample in enumerate(split.samples):
            earlier = first.setdefault(location(sample), (number, place))
            if earlier == (number, place):
                continue
            same = splits[earlier[0]].samples[earlier[1]]
            are_links = sample.image_file.is_symlink() and same.image_file.is_symlink()
            if earlier[0] == number and sample.image != same.image and are_links:
                continue  # equal images of a store, such as DVC's
            alias = "" if same.image_file == sample.image_file else f" as {same.image_file}"
            also = f"'{sample.image}' is also in {same.where}{alias}"
            message = f"{also}. Fix: remove it from one of them"
            shown = message if mentions_image(sample.image) else NO_IMAGE
            yield number, sample.line, f"{sample.where}: {shown}"


def shared_volumes(scored: Split, trained: Iterable[Split], pattern: str | None) -> str:
    """Describe the volumes of a scored split with slices in splits used by the training; "" where
    there are none.

    Args:
        pattern: evaluation.volume_pattern; its first group is the name of an image's volume.
    """
    if pattern is None:
        return ""
    volumes = _volumes(scored, pattern)
    shared: set[str] = set()
    names = []
    for split in trained:
        if found := volumes & _volumes(split, pattern):
            shared |= found
            names.append(split.name)
    if not shared:
        return ""
    return (
        f"{scored.name}: {len(shared)} of {counted(len(volumes), 'volume')}, such as "
        f"{min(shared)}, have slices in {' and '.join(names)} too; scores may be too high. Fix: "
        "move all slices of a volume into one split"
    )


def _volumes(split: Split, pattern: str) -> set[str]:
    """Return the names of the volumes in a split; images without one are reported elsewhere."""
    return {volume_of(sample.image, pattern) for sample in split.samples} - {""}


def locator() -> Callable[[Sample], str]:
    """Return a function from a sample to the path of its image without links: the same through any
    root. It lists each folder once."""
    links = cache(_links)

    def location(sample: Sample) -> str:
        folder, _, name = sample.image.rpartition("/")
        real, linked = links(sample.origin.root, folder)
        path = f"{real}/{name}"
        return os.path.realpath(path) if name in linked else path

    return location


def _links(root: Path, folder: str) -> tuple[str, set[str]]:
    """Return the path of a folder without links, and the names of the links in it."""
    real = os.path.realpath(root / folder)
    try:
        with os.scandir(real) as entries:
            return real, {entry.name for entry in entries if entry.is_symlink()}
    except OSError:  # reported by `check_existence`
        return real, set()


def seen_in_training(test: Split, data: Data, pattern: str | None) -> Iterator[str]:
    """Yield a warning for each split of the training that shares images, or volumes by `pattern`,
    with a test split; split files and folders that are missing are left out."""
    location = locator()
    tested = set(map(location, test.samples))
    for split, use in USE_IN_TRAINING.items():
        if source := getattr(data, split):
            with suppress(UserError):
                training, _ = scan_samples(source, data, masks=split != "unlabeled")
                if shared := tested.intersection(map(location, training.samples)):
                    yield (
                        f"{test.name}: shares {len(shared)} of "
                        f"{counted(len(tested), 'image')} with data.{split}, {use}; the score may "
                        "be too high"
                    )
                elif text := shared_volumes(test, [training], pattern):
                    yield text


def changed_since_training(run: Path, val: Split) -> str:
    """Describe that the validation images differ from those recorded in a run directory; "" where
    they are the same, or nothing is recorded."""
    with suppress(LookupError, TypeError):
        if last_start(run)["images"]["val"] != split_identity(val.samples):
            return (
                f"{val.name}: its images are not those that the training was validated on; the "
                "network may have been trained on some of them"
            )
    return ""
