"""Read all images and masks of a dataset, and find the unusable ones."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dataset.image_files import size_mismatch
from dataset.reader import refuse_other_size
from tools.prepare.faults import in_threads, raise_faults
from tools.prepare.own.images import BandSettings, ImageFile, inspect_image, measure_bands
from tools.prepare.own.masks import Masks, combine, inspect_mask
from tools.prepare.own.match import Matched, MatchedSplits, divide
from util.errors import UserError


class Survey(NamedTuple):
    """The files of a dataset and their content."""

    splits: MatchedSplits
    matched: Matched
    images: list[ImageFile]
    """The labelled ones first."""
    bands: BandSettings
    masks: Masks
    """In the order of `MatchedSplits.masked`."""


def survey(args: argparse.Namespace, named_colours: bool | None) -> Survey:
    """Divide the files into splits and read them.

    Args:
        named_colours: see `combine`.

    Raises `UserError` for unusable files and different sizes of image and mask (with --skip-bad,
    such images are printed and left out), and for images or masks of several kinds.
    """
    splits, matched = divide(args)
    readers: dict[Path, Callable[[Path, int], Any]] = {}
    for sample in splits.all():
        readers |= dict.fromkeys(sample.files(), inspect_image)
    readers |= {sample.mask: inspect_mask for sample in splits.masked() if sample.mask}
    found: dict[Path, Any] = dict(zip(readers, in_threads(
        [*readers.items()], lambda item: item[1](item[0], args.max_megapixels), "files", [*readers]
    ), strict=True))  # fmt: skip
    faults = {s.image: _faults([found[file] for file in s.files()]) for s in splits.all()}
    bad = {image for image, errors in faults.items() if errors}
    messages = [error for errors in faults.values() for error in errors]
    if not args.skip_bad:
        fix = "repair or remove them, or leave them out with --skip-bad"
        raise_faults(messages, "files", fix)
    elif bad:
        print(*messages, sep="\n")
        print(f"skipped  {len(bad)} of {len(faults)} images, for the reasons above")
        splits, _ = divide(args, bad)
    samples = splits.all()
    images = [found[s.image] for s in samples] + [found[s.later] for s in samples if s.later]
    masks = [found[s.mask] for s in samples if s.mask]
    return Survey(splits, matched, images, measure_bands(images), combine(masks, named_colours))


def _faults(contents: Sequence[Any]) -> list[UserError]:
    """Return the faults of a sample's files: unreadable ones, or else different sizes."""
    if unreadable := [one for one in contents if isinstance(one, UserError)]:
        return unreadable
    image, *others = contents
    found: list[UserError] = []
    for other in others:
        if isinstance(other, ImageFile):
            try:
                refuse_other_size([image.path, other.path], [image.size, other.size])
            except UserError as error:
                found.append(error)
        elif other.size != image.size:
            found.append(size_mismatch(image.path, other.path, image.size, other.size))
    return found
