"""Divide matched images and masks into the splits of a config."""

import argparse
import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from dataset.folders import files_by_stem
from dataset.split_files import shuffle_key
from dataset.validation import MIN_IMAGES
from tools.prepare.own.match import ImageAndMask, Matched, absolute, later_images, match
from util.config.data import SPLIT_NAMES
from util.errors import UserError, counted

VAL_SHARE = 0.1
"""Share of the labelled images to validate on by default."""
MIN_GROUP_SIZE = 3
"""Least images whose names may mean one patient or video."""
LAST_NUMBER = re.compile(r"\d+(?=[^\d/]*$)")
SPLIT_OF = dict.fromkeys(("val", "valid", "validation"), "val") | dict.fromkeys(
    ("test", "testing"), "test"
)
"""The split that a folder in the image folder holds, by the folder's name."""


class Division(NamedTuple):
    """Samples divided into splits."""

    samples: list[ImageAndMask]
    """In the order of their splits."""
    remarks: list[str]
    """On files without a partner."""
    is_drawn: bool
    """True if the validation split was drawn by the seed."""


def divide(args: argparse.Namespace, bad: Collection[Path] = ()) -> Division:
    """Match the files that the command line names, and divide them into splits without `bad`
    images; images without masks are unlabelled.

    Raises `UserError` for names that do not match, an impossible share, and an empty split.
    """
    images, masks = absolute(args.images), absolute(args.masks or args.images)
    matched = match(images, masks, args)
    pairs = [pair for pair in matched.pairs if pair.image not in bad]
    split_of = _splits_by_folder(pairs, images)
    in_folders = _in_folders(args, pairs, split_of)
    spare = matched.spare_masks
    val = _draw(args, pairs, split_of, spare) if in_folders is None else in_folders
    taken = {pair.image for pair in val}
    left = [pair for pair in pairs if pair.image not in taken]
    labeled = [pair for pair in left if split_of(pair.image) != "test"]
    test = [pair for pair in left if split_of(pair.image) == "test"]
    given = f"--val {' '.join(args.val or ['(default)'])}"
    if not labeled:
        raise UserError(f"{given}: takes all labelled images. Fix: leave some to train on")
    used = {file for pair in (*labeled, *val, *test) for file in pair.files()}
    bare, remarks = _without_mask(args, matched, split_of, used.union(bad))
    unlabeled = [ImageAndMask(file) for file in bare]
    samples = [
        sample._replace(split=split)
        for split, some in zip(SPLIT_NAMES, (labeled, unlabeled, val, test), strict=True)
        for sample in some
        if sample.image not in bad
    ]
    if all(sample.split != "val" for sample in samples):
        raise UserError(f"{given}: none of these images can be used. Fix: repair some")
    if args.second is not None:
        later = later_images(samples, images, masks, args)
        samples = [sample._replace(later=later[sample.image]) for sample in samples]
    return Division(samples, remarks, in_folders is None)


def _splits_by_folder(pairs: Sequence[ImageAndMask], images: Path) -> Callable[[Path], str]:
    """Return a function from a file to the split of its first folder in `images`; "" where there is
    none, or where it would leave no pair to train on."""

    def split_of(file: Path) -> str:
        parts = file.relative_to(images).parts
        return SPLIT_OF.get(parts[0].lower(), "") if len(parts) > 1 else ""

    held = {split_of(pair.image) for pair in pairs}
    return lambda file: "" if held == {split_of(file)} else split_of(file)


def _without_mask(
    args: argparse.Namespace, matched: Matched, split_of: Callable[[Path], str], skip: set[Path]
) -> tuple[list[Path], list[str]]:
    """Return the images to use without a mask, also those of `--unlabeled`, except `skip`, and
    remarks on files without a partner. Those in folders of validation and test images are left
    out."""
    more = _files_of_unlabeled(args) if args.unlabeled else []
    folders = {absolute(Path(folder)) for folder in args.val or ()}
    kinds = {"test"} if args.val else {"val", "test"}
    without_mask = [file for file in matched.without_mask if file not in skip]
    held_out = {
        file for file in without_mask if split_of(file) in kinds or folders & {*file.parents}
    }
    bare = [file for file in without_mask if file not in held_out]
    left_out = held_out - {*more}
    remarks = [
        (bare, f"{len(bare)} without a mask are unlabelled"),
        (left_out, f"{len(left_out)} without a mask in folders of validation or test images are "
         "left out; to train on them, name their folder in --unlabeled"),
        (matched.spare_masks, f"{len(matched.spare_masks)} masks without an image are left out"),
        (matched.suffix, f"names of masks end in {matched.suffix}"),
    ]  # fmt: skip
    files = [file for file in dict.fromkeys((*bare, *more)) if file not in skip]
    return files, [text for applies, text in remarks if applies]


def _files_of_unlabeled(args: argparse.Namespace) -> list[Path]:
    """Return the images of `--unlabeled` that fit the image pattern; all of them if none fits."""
    folder, masks = absolute(args.unlabeled), absolute(args.masks or args.images)
    if folder == masks != absolute(args.images):
        raise UserError(
            f"--unlabeled {args.unlabeled}: is the folder of the masks; expected another folder"
        )
    try:
        return [*files_by_stem(folder, masks, args.image_pattern).values()]
    except UserError:
        return [*files_by_stem(folder, masks).values()]


def _in_folders(
    args: argparse.Namespace, pairs: Sequence[ImageAndMask], split_of: Callable[[Path], str]
) -> list[ImageAndMask] | None:
    """Return the validation split of folders: by default, `val`; None if it is to be drawn."""
    given = args.val or []
    if not given:
        return [pair for pair in pairs if split_of(pair.image) == "val"] or None
    try:
        (text,) = given
        float(text)
    except ValueError:  # not one number
        return _pairs_in([absolute(Path(folder)) for folder in given], pairs, args)
    return None


def _draw(
    args: argparse.Namespace,
    pairs: Sequence[ImageAndMask],
    split_of: Callable[[Path], str],
    spare_masks: Sequence[Path],
) -> list[ImageAndMask]:
    """Return a validation split drawn by the seed: the share of `--val`, else `VAL_SHARE`, and up
    to `MIN_IMAGES` where this leaves two thirds to train on."""
    rest = [pair for pair in pairs if split_of(pair.image) != "test"]
    number = len(rest)
    if number < 2:
        raise _too_few(args, number, spare_masks)
    usual = max(VAL_SHARE, min(MIN_IMAGES, max(1, number // 3)) / number)
    share = float(args.val[0]) if args.val else usual
    if not 0 < share < 1:
        raise UserError(f"--val {args.val[0]}: expected a share between 0 and 1, or folders")
    count = min(max(1, round(share * number)), number - 1)
    # By name, so that most images stay in the split when labels are added.
    images = absolute(args.images)
    order = sorted(
        rest, key=lambda pair: shuffle_key(os.path.relpath(pair.image, images), args.seed)
    )
    drawn = {*order[:count]}
    return [pair for pair in rest if pair in drawn]


def _too_few(args: argparse.Namespace, number: int, spare_masks: Sequence[Path]) -> UserError:
    spare = ""
    if spare_masks:
        count = counted(len(spare_masks), "mask")
        spare = f"; found {count} without an image, such as {spare_masks[0].name}"
    return UserError(
        f"--masks {args.masks or args.images}: {counted(number, 'image')} with a usable mask to "
        f"train and validate on, expected at least 2{spare}. Fix: add masks, named as their images"
    )


def _pairs_in(
    folders: list[Path], pairs: Sequence[ImageAndMask], args: argparse.Namespace
) -> list[ImageAndMask]:
    """Return the pairs of `--val FOLDER` or `--val IMAGES MASKS`."""
    if len(folders) > 2:
        raise UserError(f"--val: found {len(folders)} folders; expected one, or images and masks")
    if not folders[0].is_dir():
        raise UserError(
            f"--val {folders[0]}: no such folder; expected a share such as 0.1, or folders"
        )
    if len(folders) == 2:
        val = match(folders[0], folders[1], args)
        if val.without_mask:
            raise UserError(
                f"--val {folders[0]}: {counted(len(val.without_mask), 'image')} without a mask, "
                f"such as {val.without_mask[0].name}"
            )
        return val.pairs
    inside = [pair for pair in pairs if folders[0] in pair.image.parents]
    if not inside:
        raise UserError(
            f"--val {folders[0]}: holds no labelled image of {absolute(args.images)}; expected a "
            "folder in it, or a folder of images and one of masks"
        )
    return inside


def mixed_groups(samples: Iterable[ImageAndMask], images: Path) -> str:
    """Describe groups of labelled images whose names differ in the last number only, if some are in
    training and validation; "" where most names are in no group of `MIN_GROUP_SIZE`, or all in
    one."""
    groups: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        if sample.split in ("labeled", "val"):
            stem, _ = os.path.splitext(sample.image)
            groups[LAST_NUMBER.sub("*", stem)].append(sample.split)
    large = {name: splits for name, splits in groups.items() if len(splits) >= MIN_GROUP_SIZE}
    total, grouped = (sum(map(len, some.values())) for some in (groups, large))
    mixed = [name for name, splits in large.items() if len(set(splits)) > 1]
    if not mixed or len(large) < 2 or 2 * grouped < total:
        return ""
    return (
        f"{grouped} of {total} names form {len(large)} groups, such as "
        f"{os.path.relpath(mixed[0], images)}; if a group is a patient or video, keep each in one "
        "split (docs/own_data.md#is-my-data-correct)"
    )
