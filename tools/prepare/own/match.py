"""Match images with masks, and with later images, by name."""

import argparse
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dataset.folders import files_by_stem
from util.errors import UserError, and_others


class ImageAndMask(NamedTuple):
    """The files of a sample."""

    image: Path
    mask: Path | None = None
    later: Path | None = None
    """The later image of a pair."""
    split: str = ""
    """A name of `SPLIT_NAMES`."""

    def files(self) -> list[Path]:
        """Return the files in the order of a line of a split file."""
        return [file for file in (self.image, self.later, self.mask) if file]


class Matched(NamedTuple):
    """Images with their masks, and the files without a partner."""

    pairs: list[ImageAndMask]
    without_mask: list[Path]
    spare_masks: list[Path]
    suffix: str
    """Text at the end of the masks' names that the images' names lack."""


def absolute(path: Path) -> Path:
    """Return an absolute path without '..'; links stay as they are."""
    return Path(os.path.abspath(path))


def match(images: Path, masks: Path, args: argparse.Namespace) -> Matched:
    """Match images and masks of one relative name but for the suffix, such as a/b.jpg and a/b.png
    or a/b_mask.png; or of one `*` in the patterns.

    Raises `UserError` when there are no images, and when none match.
    """
    inside = images == masks
    by_image = _images(images, None if inside else masks, args.image_pattern)
    mixed = UserError(
        f"--masks {masks}: the folder of the images. Fix: put masks in a folder of their own, or "
        "separate them with --image-pattern and --mask-pattern"
    )
    if inside and args.image_pattern == args.mask_pattern:
        raise mixed
    by_mask = files_by_stem(masks, None if inside else images, args.mask_pattern)
    narrow, wide = sorted((by_mask, by_image), key=len)
    taken = set(narrow.values())
    for stem in [stem for stem, file in wide.items() if file in taken]:
        del wide[stem]  # files of both patterns belong to the narrower one
    if not (by_image and by_mask):
        raise mixed
    suffix = _common_suffix(list(by_image), by_mask)
    of = {stem: by_mask.get(stem + suffix) for stem in by_image}
    pairs = [ImageAndMask(file, of[stem]) for stem, file in by_image.items() if of[stem]]
    if not pairs:
        raise UserError(
            f"--masks {masks}: no mask has the name of an image; expected such as "
            f"{next(iter(by_image))}.png, found {next(iter(by_mask.values())).relative_to(masks)}. "
            "Fix: describe other names with --image-pattern and --mask-pattern, such as "
            "'*_image.png'"
        )
    without_mask = [file for stem, file in by_image.items() if not of[stem]]
    used = {pair.mask for pair in pairs}
    spare_masks = [file for file in by_mask.values() if file not in used]
    return Matched(pairs, without_mask, spare_masks, suffix)


def _images(folder: Path, skip: Path | None, pattern: str) -> dict[str, Path]:
    """Return the images below a folder as `files_by_stem`; the error for HDF5 names its command."""
    try:
        return files_by_stem(folder, skip, pattern)
    except UserError as error:
        if next(folder.rglob("*.h5"), None) is None:
            raise
        hdf5 = "HDF5 is read for ACDC only: python -m tools.prepare acdc --source FOLDER"
        raise UserError(f"{error}. {hdf5}") from None


def _common_suffix(images: list[str], masks: Mapping[str, Path]) -> str:
    """Return the most frequent rest of masks' names after images' names; "" for equal names.

    Raises `UserError` for two that are equally frequent.
    """
    if masks.keys() & set(images):
        return ""
    rests = Counter(
        mask[len(image) :] for image in images[:50] for mask in masks if mask.startswith(image)
    )
    most = rests.most_common(2)
    if len(most) == 2 and most[0][1] == most[1][1]:
        files = [next(masks[name] for name in masks if name.endswith(end)) for end, _ in most]
        patterns = [f"'*{end}{file.suffix}'" for (end, _), file in zip(most, files, strict=True)]
        raise UserError(
            f"--masks: names like {files[0].name} and names like {files[1].name} are equally "
            f"frequent; expected one mask per image. Fix: --mask-pattern {' or '.join(patterns)}"
        )
    return most[0][0] if most else ""


def later_images(
    samples: Sequence[ImageAndMask], images: Path, masks: Path, args: argparse.Namespace
) -> dict[Path, Path]:
    """Return the later image of `--second` for each image: its relative name is the same but for
    the suffix.

    Raises `UserError` for a name that is in one of the two folders only.
    """
    second, skip = absolute(args.second), masks if masks != images else None
    if images == second:
        raise UserError(
            f"--second {second}: is the folder of the earlier images; expected the later ones"
        )
    first, later = (files_by_stem(folder, skip, args.image_pattern) for folder in (images, second))
    for option, folder, own, other in (
        ("--images", images, first, later), ("--second", second, later, first),
    ):  # fmt: skip
        if missing := [file for stem, file in own.items() if stem not in other]:
            raise UserError(
                f"{option} {folder}: the other date has no image named as "
                f"{missing[0].relative_to(folder)}{and_others(missing)}; expected one name for both"
            )
    found = {file: later[stem] for stem, file in first.items()}
    for sample in samples:
        if sample.image not in found:
            raise UserError(
                f"{sample.image}: not in --images {images}, so it has no later image in --second; "
                "of pairs, --val is a share or a folder in --images"
            )
    return found
