"""Read all images and masks of a dataset, and find the unusable ones."""

import argparse
import shlex
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from dataset.georeferencing import refuse_other_grid
from dataset.image_files import size_mismatch_error
from dataset.reader import refuse_other_size
from dataset.threads import try_in_threads
from tools.prepare.faults import raise_all_faults
from tools.prepare.own.divide import Division, divide
from tools.prepare.own.images import (
    ImageFile,
    Kind,
    band_settings,
    common_kind,
    grid_side,
    inspect_image,
)
from tools.prepare.own.masks import MaskFile, Masks, combine, inspect_mask
from tools.prepare.own.match import ImageAndMask
from util.errors import UserError


class Survey(NamedTuple):
    """The files of a dataset and their content."""

    division: Division
    images: list[ImageFile]
    kind: Kind
    bands: dict[str, Any]
    """Keys of the data section, see `band_settings`."""
    masks: Masks
    """Masks of the samples that have one, in their order."""

    @property
    def samples(self) -> list[ImageAndMask]:
        return self.division.samples

    def masked(self) -> list[ImageAndMask]:
        return [sample for sample in self.samples if sample.mask]


def survey(args: argparse.Namespace, named_colours: bool | None) -> Survey:
    """Divide the files into splits and read them; `named_colours`: see `combine`.

    Raises `UserError` for unusable files and different sizes or grids of image and mask (with
    --skip-bad, such images are printed and left out), and for images or masks of several kinds.
    """
    division = divide(args)
    samples = division.samples
    files = [*dict.fromkeys(file for sample in samples for file in sample.files())]
    mask_files = {sample.mask for sample in samples if sample.mask}
    side = grid_side(len(files) - len(mask_files))

    def inspect(file: Path) -> ImageFile | MaskFile:
        if file in mask_files:
            return inspect_mask(file, args.max_megapixels)
        return inspect_image(file, args.max_megapixels, side)

    print(f"reading  {len(files)} images and masks", flush=True)
    found: dict[Path, Any] = dict(
        zip(files, try_in_threads(inspect, files, files, "files"), strict=True)
    )
    faults = {sample.image: _faults(sample, found) for sample in samples}
    bad = {image for image, errors in faults.items() if errors}
    messages = [error for errors in faults.values() for error in errors]
    if messages and not args.skip_bad:
        fix, command = "repair or remove bad files", ""
        with suppress(UserError):  # too few images may be left
            divide(args, bad)
            fix += ", or run the command above, which leaves them out"
            command = shlex.join(["python", "-m", "tools.prepare", *sys.argv[1:], "--skip-bad"])
        raise_all_faults(messages, "files", fix, command)
    elif bad:
        print(*messages, sep="\n")
        print(f"skipped  {len(bad)} of {len(faults)} images, for the reasons above")
        division = divide(args, bad)
        samples = division.samples
    images = [found[s.image] for s in samples] + [found[s.later] for s in samples if s.later]
    masks = combine([found[s.mask] for s in samples if s.mask], named_colours)
    kind = common_kind(images)
    return Survey(division, images, kind, band_settings(images, kind), masks)


def _faults(sample: ImageAndMask, found: Mapping[Path, Any]) -> list[UserError]:
    """Return the faults of a sample's files: unreadable ones, different sizes, different grids."""
    contents = [found[file] for file in sample.files()]
    if unreadable := [one for one in contents if isinstance(one, UserError)]:
        return unreadable
    image, *others = contents
    faults = []
    if sample.mask and others[-1].size != image.size:
        faults.append(size_mismatch_error(sample.image, sample.mask, image.size, others[-1].size))
    try:
        if sample.later:
            refuse_other_size([sample.image, sample.later], [image.size, others[0].size])
        if not faults:
            refuse_other_grid(sample.files())
    except UserError as error:
        faults.append(error)
    return faults
