"""Read all images and masks of a dataset, and find the unusable ones."""

import argparse
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from dataset.image_files import size_mismatch
from dataset.reader import refuse_other_size
from tools.prepare.own.bands import ImageFile, look_at_image
from tools.prepare.own.match import Parts
from tools.prepare.own.survey import MaskFile, in_threads, look_at_mask, refuse_all
from util.errors import UserError


def look(
    parts: Parts,
    later: Mapping[Path, Path],
    options: argparse.Namespace,
    without: Callable[[Container[Path]], Parts],
) -> tuple[Parts, list[ImageFile], list[MaskFile]]:
    """Read all images and masks, the labelled ones first.

    Raises `UserError`, once all faults are printed, for files that cannot be used and for sizes
    that differ; or with --skip-bad returns the parts `without` such images.
    """
    samples = [*parts.with_masks(), *parts.unlabeled]
    images = [image for image, *_ in samples]
    readers = dict.fromkeys([*images, *(later[image] for image in images if later)], look_at_image)
    looks = readers | {mask: look_at_mask for _, *more in samples for mask in more}
    found = dict(zip(looks, in_threads(
        list(looks.items()), lambda item: item[1](item[0], options.max_megapixels), "files"
    ), strict=True))  # fmt: skip
    faults: dict[Path, list[UserError]] = {}
    for image, *more in samples:
        looked = [found[file] for file in (image, *more, *([later[image]] if later else []))]
        wrong = [one for one in looked if isinstance(one, UserError)]
        if wrong := wrong or _sizes_differ(looked):
            faults[image] = wrong
    said = [fault for wrong in faults.values() for fault in wrong]
    if not options.skip_bad:
        refuse_all(said)
    elif said:
        print(*said, sep="\n")
        print(f"skipped  {len(faults)} of {len(samples)} images, for the reasons above")
        parts = without(faults)
    samples = [*parts.with_masks(), *parts.unlabeled]
    images = [image for image, *_ in samples]
    images += [later[image] for image in images if later]
    masks = [mask for _, *more in samples for mask in more]
    return (
        parts,
        [one for file in images if isinstance(one := found[file], ImageFile)],
        [one for file in masks if isinstance(one := found[file], MaskFile)],
    )


def _sizes_differ(looked: Sequence[Any]) -> list[UserError]:
    """Return the faults in the sizes of a sample's files: image, mask, later image."""
    image, *others = looked
    found: list[UserError] = []
    for other in others:
        if isinstance(other, MaskFile) and other.size != image.size:
            found.append(size_mismatch(image.path, other.path, image.size, other.size))
        elif isinstance(other, ImageFile):
            try:
                refuse_other_size([image.path, other.path], [image.size, other.size])
            except UserError as error:
                found.append(error)
    return found
