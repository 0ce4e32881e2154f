"""Images that are listed twice, or that a training has seen."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from dataset.folders import scan_samples
from dataset.samples import NO_IMAGE, Sample, mentions_image
from dataset.split_files import SampleList, list_identity
from util.config.data import Data
from util.errors import UserError, counted

SEEN = {
    "labeled": "whose masks were trained on",
    "val": "which chose the best epoch",
    "unlabeled": "which semi-supervised methods train on",
}
"""Use of the splits in training."""


def refuse_overlaps(*lists: SampleList) -> None:
    """Raise `UserError` for an image that is listed twice."""
    for _, _, message in overlaps(lists):
        raise UserError(message)


def overlaps(lists: Sequence[SampleList]) -> Iterator[tuple[int, int, str]]:
    """Yield list number, line and a message for each image that occurs earlier, in any list, under
    any name or root."""
    location = locator()
    first: dict[str, tuple[int, int]] = {}
    for number, listed in enumerate(lists):
        for place, sample in enumerate(listed.samples):
            earlier = first.setdefault(location(sample), (number, place))
            if earlier != (number, place):
                same = lists[earlier[0]].samples[earlier[1]]
                if earlier[0] == number and sample.image != same.image and _are_links(sample, same):
                    continue  # equal images of a store, such as DVC's
                alias = "" if same.image_file == sample.image_file else f" as {same.image_file}"
                also = f"'{sample.image}' is also in {same.where}{alias}"
                message = f"{also}; remove it from one of them"
                shown = message if mentions_image(sample.image) else NO_IMAGE
                yield number, sample.line, f"{sample.where}: {shown}"


def _are_links(*samples: Sample) -> bool:
    return all(sample.image_file.is_symlink() for sample in samples)


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


def seen_in_training(test: SampleList, data: Data) -> Iterator[str]:
    """Yield a warning for each split of the training that shares images with a test split; lists
    and folders that are missing are left out."""
    location = locator()
    tested = set(map(location, test.samples))
    for kind, use in SEEN.items():
        if source := getattr(data, kind):
            with suppress(UserError):
                listed, _ = scan_samples(source, data, masks=kind != "unlabeled")
                if shared := tested.intersection(map(location, listed.samples)):
                    yield (
                        f"warning: {test.name}: shares {len(shared)} of "
                        f"{counted(len(tested), 'image')} with data.{kind}, {use}; the score may "
                        "be too high"
                    )


def changed_since_training(run: Path, val: SampleList) -> str:
    """Describe that the validation images differ from those recorded in a run directory; "" where
    they are the same, or nothing is recorded."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        last = (run / "starts.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        if json.loads(last)["images"]["val"] != list_identity(val.samples):
            return (
                f"{val.name}: its images are not those that the training was validated on; it may "
                "have been trained on some"
            )
    return ""
