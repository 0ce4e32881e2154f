"""Match images with masks by name, and divide them into the splits of a config."""

import argparse
import os
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dataset.folders import files_by_stem
from dataset.split_files import draw_key
from dataset.validation import MIN_IMAGES
from util.errors import UserError, and_others, counted

VAL_SHARE = 0.1
"""Share of the labelled images to validate on by default."""
FOLDERS = {"val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""Names of folders in the image folder that hold a split."""


class ImageAndMask(NamedTuple):
    """The files of a sample."""

    image: Path
    mask: Path | None = None
    later: Path | None = None
    """The later image of a pair."""

    def files(self) -> list[Path]:
        """Return the files in the order of a line of a split file."""
        return [file for file in (self.image, self.later, self.mask) if file]


class Matched(NamedTuple):
    """Images with their masks, and the files without a partner."""

    pairs: list[ImageAndMask]
    without_mask: list[Path]
    spare_masks: int
    suffix: str
    """Text at the end of the masks' names that the images' names lack."""
    held_out: int = 0
    """Number of images without a mask in folders of validation or test images."""


class MatchedSplits(NamedTuple):
    """The splits of a config."""

    labeled: list[ImageAndMask]
    unlabeled: list[ImageAndMask]
    val: list[ImageAndMask]
    test: list[ImageAndMask]

    def masked(self) -> list[ImageAndMask]:
        return [*self.labeled, *self.val, *self.test]

    def all(self) -> list[ImageAndMask]:
        return [*self.masked(), *self.unlabeled]


def absolute(path: Path) -> Path:
    """Return an absolute path without '..'; links stay as they are."""
    return Path(os.path.abspath(path))


def divide(args: argparse.Namespace, bad: Container[Path] = ()) -> tuple[MatchedSplits, Matched]:
    """Match the files that the command line names, and divide them into splits without `bad`
    images; images without masks are unlabelled.

    Raises `UserError` for names that do not match, an impossible share, and an empty split.
    """
    images, masks = absolute(args.images), absolute(args.masks or args.images)
    matched = match(images, masks, args)
    pairs = [pair for pair in matched.pairs if pair.image not in bad]
    by_folder = {kind: _in_folders(pairs, images, names) for kind, names in FOLDERS.items()}
    val = _validation(args, matched._replace(pairs=pairs), images, by_folder)
    taken = {sample.image for sample in val}
    test = [sample for sample in by_folder["test"] if sample.image not in taken]
    taken |= {sample.image for sample in test}
    labeled = [pair for pair in pairs if pair.image not in taken]
    if not labeled:
        given = " ".join(args.val or ["(default)"])
        raise UserError(f"--val {given}: takes all labelled images; leave some to train on")
    more = _unlabelled(args, images, masks) if args.unlabeled else []
    taken |= {file for sample in (*val, *test, *labeled) for file in sample.files()}
    held_out = _held_out(args, matched, images)
    rest = [file for file in matched.without_mask if file not in held_out]
    matched = matched._replace(without_mask=rest, held_out=len(held_out - {*more}))
    bare = dict.fromkeys((*rest, *more))
    splits = MatchedSplits(
        labeled, [ImageAndMask(file) for file in bare if file not in taken], val, test
    )
    splits = MatchedSplits(*([s for s in some if s.image not in bad] for some in splits))
    if not splits.val:
        raise UserError(
            f"--val {' '.join(args.val)}: none of these images can be used; repair some"
        )
    if args.second is not None:
        skip = masks if masks != images else None
        splits = _with_later(splits, images, absolute(args.second), skip, args.image_pattern)
    return splits, matched


def _unlabelled(args: argparse.Namespace, images: Path, masks: Path) -> list[Path]:
    """Return the images of `--unlabeled` that fit the image pattern; all of them if none fits."""
    folder = absolute(args.unlabeled)
    if folder == masks != images:
        raise UserError(
            f"--unlabeled {args.unlabeled}: is the folder of the masks; expected another folder"
        )
    try:
        return [*files_by_stem(folder, masks, args.image_pattern).values()]
    except UserError:
        return [*files_by_stem(folder, masks).values()]


def _held_out(args: argparse.Namespace, matched: Matched, images: Path) -> set[Path]:
    """Return the images without a mask in the folders of validation and test images."""
    used = FOLDERS if not args.val else {"test": FOLDERS["test"]}
    found = {
        file
        for names in used.values()
        if not all(_is_in_folder(pair.image, images, names) for pair in matched.pairs)
        for file in matched.without_mask
        if _is_in_folder(file, images, names)
    }
    folders = {absolute(Path(folder)) for folder in args.val or ()}
    return found | {file for file in matched.without_mask if folders & {*file.parents}}


def match(images: Path, masks: Path, args: argparse.Namespace) -> Matched:
    """Match images and masks of one relative name but for the suffix, such as a/b.jpg and a/b.png
    or a/b_mask.png; or of one `*` in the patterns.

    Raises `UserError` when none match.
    """
    inside = images == masks
    mixed = UserError(
        f"--masks {masks}: the folder of the images; put masks in a folder of their own, or "
        "separate them with --image-pattern and --mask-pattern"
    )
    if inside and args.image_pattern == args.mask_pattern:
        raise mixed
    by_image = files_by_stem(images, None if inside else masks, args.image_pattern)
    by_mask = files_by_stem(masks, None if inside else images, args.mask_pattern)
    if len(by_mask) <= len(by_image):  # the narrower pattern takes the files of both
        by_image = _without(by_mask, by_image)
    else:
        by_mask = _without(by_image, by_mask)
    if not (by_image and by_mask):
        raise mixed
    suffix = _common_suffix(list(by_image), by_mask)
    of = {stem: by_mask.get(stem + suffix) for stem in by_image}
    pairs = [ImageAndMask(file, of[stem]) for stem, file in by_image.items() if of[stem]]
    if not pairs:
        raise UserError(
            f"--masks {masks}: no mask has the name of an image; expected such as "
            f"{next(iter(by_image))}.png, found {next(iter(by_mask.values())).relative_to(masks)}; "
            "other names fit with --image-pattern and --mask-pattern, such as '*_image.png'"
        )
    without_mask = [file for stem, file in by_image.items() if not of[stem]]
    return Matched(pairs, without_mask, len(by_mask) - len(pairs), suffix)


def _without(taken: Mapping[str, Path], files: Mapping[str, Path]) -> dict[str, Path]:
    """Leave out the `taken` files."""
    used = set(taken.values())
    return {stem: file for stem, file in files.items() if file not in used}


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


def _in_folders(
    pairs: list[ImageAndMask], images: Path, names: Sequence[str]
) -> list[ImageAndMask]:
    """Return the pairs below folders of these names; none where that leaves no pair to train on."""
    found = [pair for pair in pairs if _is_in_folder(pair.image, images, names)]
    return found if len(found) < len(pairs) else []


def _is_in_folder(file: Path, images: Path, names: Sequence[str]) -> bool:
    """Return whether the first folder of a file in `images` has one of these names."""
    parts = file.relative_to(images).parts
    return len(parts) > 1 and parts[0].lower() in names


def _validation(
    args: argparse.Namespace,
    matched: Matched,
    images: Path,
    by_folder: dict[str, list[ImageAndMask]],
) -> list[ImageAndMask]:
    """Return the validation split: of folders, or drawn by the seed.

    By default, the folder `val` if there is one, else `VAL_SHARE`, and up to `MIN_IMAGES` where
    this leaves two thirds to train on.
    """
    given = args.val or []
    if not given and by_folder["val"]:
        return by_folder["val"]
    if given and not (len(given) == 1 and _is_number(given[0])):
        folders = [absolute(Path(folder)) for folder in given]
        return _pairs_in(folders, matched, images, args)
    test = set(by_folder["test"])
    rest = [pair for pair in matched.pairs if pair not in test]
    number = len(rest)
    default = max(VAL_SHARE, min(MIN_IMAGES, max(1, number // 3)) / max(number, 1))
    wanted = float(given[0]) if given else default
    if not 0 < wanted < 1 or number < 2:
        raise UserError(
            f"--val {' '.join(given) or default}: expected a share between 0 and 1 of at least 2 "
            f"images, found {number} images with masks"
        )
    count = min(max(1, round(wanted * number)), number - 1)
    # By name, so that most images stay in the split when labels are added.
    order = sorted(rest, key=lambda pair: draw_key(os.path.relpath(pair.image, images), args.seed))
    drawn = {*order[:count]}
    return [pair for pair in rest if pair in drawn]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _pairs_in(
    folders: list[Path], matched: Matched, images: Path, args: argparse.Namespace
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
    inside = [pair for pair in matched.pairs if folders[0] in pair.image.parents]
    if not inside:
        raise UserError(
            f"--val {folders[0]}: holds no labelled image of {images}; expected a folder in it, or "
            "a folder of images and one of masks"
        )
    return inside


def _with_later(
    splits: MatchedSplits, images: Path, second: Path, skip: Path | None, pattern: str
) -> MatchedSplits:
    """Add the later image of each sample: its relative name is the same but for the suffix.

    Raises `UserError` for a name that is in one of the two folders only.
    """
    if images == second:
        raise UserError(
            f"--second {second}: is the folder of the earlier images; expected the later ones"
        )
    by_first, by_second = files_by_stem(images, skip, pattern), files_by_stem(second, skip, pattern)
    for option, folder, own, other in (
        ("--images", images, by_first, by_second), ("--second", second, by_second, by_first),
    ):  # fmt: skip
        if missing := [file for stem, file in own.items() if stem not in other]:
            raise UserError(
                f"{option} {folder}: the other date has no image named as "
                f"{missing[0].relative_to(folder)}{and_others(missing)}; expected one name for both"
            )
    later = {file: by_second[stem] for stem, file in by_first.items()}
    for sample in splits.all():
        if sample.image not in later:
            raise UserError(
                f"{sample.image}: not in --images {images}, so it has no later image in --second; "
                "of pairs, --val is a share or a folder in --images, and those without masks are "
                "unlabelled (without --unlabeled)"
            )
    return MatchedSplits(*([s._replace(later=later[s.image]) for s in some] for some in splits))
