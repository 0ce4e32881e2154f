"""New partitions of a dataset; the same files and seed give the same partition everywhere."""

import math
import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataset.reader import Reader
from dataset.samples import Origin, Sample, leaves_folder
from dataset.split_files import Split, line_paths, sample_line, shuffle_key
from dataset.threads import map_in_threads
from dataset.validation import read_splits
from tools.splits.layout import files_by_name
from util.config.data import Data
from util.config.types import IGNORE
from util.errors import UserError
from util.paths import find_path

ClassesByImage = Mapping[str, frozenset[int]]  # classes of a mask by image


class Partition(NamedTuple):
    """The splits of a partition, each sorted by image."""

    labeled: list[Sample]
    unlabeled: list[Sample]
    val: list[Sample]

    def lists(self, folder: Path) -> dict[Path, list[str]]:
        """Return the lines of the split files with images, by path."""
        return {
            folder / f"{kind}.txt": [sample_line(*line_paths(sample)) for sample in samples]
            for kind, samples in self._asdict().items()
            if samples
        }


def pair_files(root: Path, images: str, masks: str) -> list[Sample]:
    """Pair images and masks of the same name (see `files_by_name`); keep images without a mask.

    A mask that is also among `images`, in a folder below theirs or by its pattern, is no image.
    """
    mask_of = files_by_name(root, masks)
    files = files_by_name(root, images)
    used = set(map(os.path.normpath, mask_of.values()))
    image_of = {name: file for name, file in files.items() if os.path.normpath(file) not in used}
    if not mask_of.keys() & image_of.keys():
        raise UserError(
            f"{root}: no file in {images} has one of its name in {masks}, such as "
            f"{next(iter(files.values()))} and {next(iter(mask_of.values()))}"
        )
    origin = Origin(root / images, root)
    return [Sample(image, mask_of.get(name), 0, origin) for name, image in image_of.items()]


def draw(
    samples: Sequence[Sample],
    labeled: Fraction,
    val: Fraction,
    seed: int,
    classes: ClassesByImage | None = None,
) -> Partition:
    """Draw a partition; a smaller one of the same seed and `val` is part of a larger one.

    Args:
        labeled, val: below 1, a share of the images with masks (`labeled`: outside `val`); else a
            number of images.
        classes: draw images that show all classes first.

    Raises `UserError` when the images do not suffice.
    """
    by_image = {s.image: s for s in samples if s.mask is not None}
    order = in_drawn_order(list(by_image.values()), seed)
    if classes is not None:
        order = _covering_first(order, classes)
    val_count = _count(val, len(order))
    train, held_out = order[: max(0, len(order) - val_count)], order[len(order) - val_count :]
    count = _count(labeled, len(train))
    bare = [s for s in samples if s.mask is None]
    most = len(train) - (not bare)  # unlabeled.txt needs an image
    if not 0 < count <= most:
        raise UserError(
            f"{len(order)} images with a mask: --val takes {val_count}, --labeled {count} of the "
            f"other {len(train)}; expected at least 1, and 1 left over for unlabeled.txt"
        )
    return Partition(
        sorted(by_image[image] for image in train[:count]),
        sorted([by_image[image] for image in train[count:]] + bare),
        sorted(by_image[image] for image in held_out),
    )


def in_drawn_order(samples: Sequence[Sample], seed: int) -> list[str]:
    """Return images in the order of the draw."""
    return sorted((s.image for s in samples), key=lambda image: shuffle_key(image, seed))


def share_or_count(text: str, option: str) -> Fraction:
    """Parse a share ('1/8', '0.125') or a number ('92'); raises `UserError` for other texts."""
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(-1)
    if value < 0 or (value >= 1 and not text.isdecimal()):  # 1.0 could mean one image, or all
        raise UserError(
            f"{option} {text}: expected a share such as 1/8 or 0.1, or a number such as 92"
        )
    return value


def read_config(data: Data, folds: bool = False) -> tuple[list[Sample], Split | None]:
    """Return the labelled and unlabelled images of a config, and its validation images.

    `folds`: draw from the validation images too. Paths are relative to data.root. Raises
    `UserError` as `read_splits` does, and for an image outside data.root.
    """
    if data.labeled is None:
        raise UserError(
            "make --config: data.labeled names no images to draw from. Fix: --set "
            "data.labeled=FILE; or draw from --root or --list"
        )
    labeled, unlabeled, val = read_splits(data, unlabeled=data.unlabeled is not None)
    drawn = (*labeled.samples, *unlabeled.samples, *(val.samples if folds else ()))
    root = find_path(data.root)
    return [_relative_to(sample, root) for sample in drawn], None if folds else val


def _relative_to(sample: Sample, root: Path) -> Sample:
    by_name = sample.origin.folders is not None  # below the folders of data.pair, of one root
    if by_name and os.path.abspath(sample.origin.root) == os.path.abspath(root):
        return sample
    files = sample.files
    image, *others = (os.path.relpath(file, root) for file in files)
    if by_name or any(map(leaves_folder, (image, *others))):
        raise UserError(
            f"{sample.where}: {sample.image} is not below data.root ({root}), as paths of a list "
            "must be. Fix: draw from that source alone"
        )
    mask = others.pop() if sample.mask else None
    second = others.pop() if sample.second else None
    return sample._replace(image=image, second=second, mask=mask, origin=Origin(root, root))


def read_classes(data: Data, samples: Sequence[Sample]) -> dict[str, frozenset[int]]:
    """Return the classes that each mask shows where its image has data.

    Raises `UserError` for a faulty mask or image.
    """
    reader = Reader(data)

    def shown(sample: Sample) -> frozenset[int]:
        return frozenset(np.unique(np.asarray(reader.counted_mask(sample))).tolist()) - {IGNORE}

    masked = [s for s in samples if s.mask is not None]
    found = map_in_threads(shown, masked, [s.mask_file for s in masked], "reading masks")
    return {sample.image: classes for sample, classes in zip(masked, found, strict=True)}


def coverage(samples: Sequence[Sample], classes: ClassesByImage, names: Sequence[str]) -> str:
    """Describe how many classes these samples show, and name the missing ones."""
    shown = frozenset().union(*(classes[s.image] for s in samples))
    missing = [name for index, name in enumerate(names) if index not in shown]
    text = f"{len(names) - len(missing)} of {len(names)} classes"
    return f"{text}; not {', '.join(missing)}" if missing else text


def _covering_first(order: list[str], classes: ClassesByImage) -> list[str]:
    """Put images first that add most classes, greedily, until no class is missing."""
    missing = frozenset().union(*(classes[image] for image in order))
    first: list[str] = []
    while missing:
        best = max(order, key=lambda image: len(missing & classes[image]))
        first.append(best)
        missing -= classes[best]
    return first + [image for image in order if image not in first]


def _count(share: Fraction, total: int) -> int:
    """Return a number of images, rounded up as in most published partitions."""
    return math.ceil(share * total) if share < 1 else int(share)
