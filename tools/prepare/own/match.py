"""Which mask belongs to which image, and which images are for what."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataset.folders import files_by_stem
from dataset.val_size import MIN_IMAGES as ENOUGH
from util.errors import UserError, and_others

ImageAndMask = tuple[Path, Path]
SHARE = 0.1
"""Of the labelled images, to validate on unless told otherwise."""


class Matched(NamedTuple):
    """Images with their masks, and what is left over."""

    pairs: list[ImageAndMask]
    without_mask: list[Path]
    spare_masks: int
    suffix: str
    """What the names of masks have beyond their images'."""


class Parts(NamedTuple):
    """The images of a config."""

    labeled: list[ImageAndMask]
    unlabeled: list[tuple[Path]]
    val: list[ImageAndMask]


def match(images: Path, masks: Path, patterns: tuple[str, str] = ("*", "*")) -> Matched:
    """Images and masks of one relative name but for the suffix, such as a/b.jpg and a/b.png or
    a/b_mask.png; or of one `*` in the patterns of images and masks.

    Raises `UserError` when none match.
    """
    if (images, patterns[0]) == (masks, patterns[1]):
        raise UserError(
            f"--masks {masks}: the folder of the images; put masks in one of their own, or tell "
            "them apart with --image-pattern and --mask-pattern"
        )
    inside = images == masks
    by_image = files_by_stem(images, None if inside else masks, patterns[0])
    by_mask = files_by_stem(masks, None if inside else images, patterns[1])
    suffix = _common_suffix(list(by_image), list(by_mask))
    pairs = [
        (file, by_mask[stem + suffix])
        for stem, file in by_image.items()
        if stem + suffix in by_mask
    ]
    if not pairs:
        raise UserError(
            f"--masks {masks}: no mask has the name of an image; expected such as "
            f"{next(iter(by_image))}.png, found {next(iter(by_mask.values())).relative_to(masks)}; "
            "other names fit with --image-pattern and --mask-pattern, such as '*_image.png'"
        )
    lone = [file for stem, file in by_image.items() if stem + suffix not in by_mask]
    return Matched(pairs, lone, len(by_mask) - len(pairs), suffix)


def part(
    matched: Matched,
    images: Path,
    unlabeled: Path | None,
    val: Sequence[str] | None,
    seed: int,
    patterns: tuple[str, str] = ("*", "*"),
) -> Parts:
    """Labelled, unlabelled and validation images; images without masks are unlabelled.

    Args:
        val: as on the command line: a share, drawn by the seed; a folder below that of the images;
            or a folder of images and one of masks.  None: `SHARE`, and up to `ENOUGH` where this
            leaves two thirds to train on.

    Raises `UserError` for an impossible share, and when a part is left without images.
    """
    number = len(matched.pairs)
    if val is None:
        val = [str(max(SHARE, min(ENOUGH, max(1, number // 3)) / max(number, 1)))]
    share = _number(val[0]) if len(val) == 1 else None
    if share is not None:
        if not 0 < share < 1 or len(matched.pairs) < 2:
            raise UserError(
                f"--val {val[0]}: expected a share between 0 and 1 of at least 2 images, found "
                f"{len(matched.pairs)} images with masks"
            )
        count = min(max(1, round(share * len(matched.pairs))), len(matched.pairs) - 1)
        order = np.random.default_rng(seed).permutation(len(matched.pairs))
        held_out = [matched.pairs[i] for i in sorted(order[:count])]
    else:
        folders = [absolute(Path(folder)) for folder in val]
        held_out = _pairs_in(folders, matched, images, patterns)
    taken = {image for image, _ in held_out}
    labeled = [pair for pair in matched.pairs if pair[0] not in taken]
    if not labeled:
        raise UserError(f"--val {' '.join(val)}: takes all labelled images; leave some to train on")
    extra = list(files_by_stem(absolute(unlabeled)).values()) if unlabeled else []
    taken |= {image for image, _ in labeled}
    rest = dict.fromkeys(file for file in [*matched.without_mask, *extra] if file not in taken)
    return Parts(labeled, [(file,) for file in rest], held_out)


def later_images(
    parts: Parts, images: Path, second: Path, skip: Path | None, pattern: str = "*"
) -> dict[Path, Path]:
    """The later image of each one in `parts`: it has the same relative name but for the suffix.

    Raises `UserError` for a name that stands in one of the two folders alone.
    """
    if images == second:
        raise UserError(f"--second {second}: the folder of the earlier images; expected another")
    by_first, by_second = files_by_stem(images, skip, pattern), files_by_stem(second, skip, pattern)
    for option, folder, own, other in (
        ("--images", images, by_first, by_second), ("--second", second, by_second, by_first),
    ):  # fmt: skip
        if lone := [file for stem, file in own.items() if stem not in other]:
            raise UserError(
                f"{option} {folder}: the other date has no image of the name of "
                f"{lone[0].relative_to(folder)}{and_others(lone)}; expected both under one name"
            )
    later = {file: by_second[stem] for stem, file in by_first.items()}
    for image, *_ in (*parts.labeled, *parts.unlabeled, *parts.val):
        if image not in later:
            raise UserError(
                f"{image}: does not lie in --images {images}, so has no later image in --second; "
                "of pairs, --val is a share or a folder in --images, and those without masks are "
                "unlabelled (without --unlabeled)"
            )
    return later


def absolute(path: Path) -> Path:
    """Without '..' and with links left as they are."""
    return Path(os.path.abspath(path))


def _pairs_in(
    folders: list[Path], matched: Matched, images: Path, patterns: tuple[str, str]
) -> list[ImageAndMask]:
    """The pairs that `--val FOLDER` or `--val MIN_IMAGES MASKS` means."""
    if len(folders) > 2:
        raise UserError(f"--val: found {len(folders)} folders, expected one, or images and masks")
    if not folders[0].is_dir():
        raise UserError(
            f"--val {folders[0]}: no such folder; expected a share such as 0.1, or folders"
        )
    if len(folders) == 2:
        val = match(folders[0], folders[1], patterns)
        if val.without_mask:
            raise UserError(
                f"--val {folders[0]}: {len(val.without_mask)} images have no mask, such as "
                f"{val.without_mask[0].name}"
            )
        return val.pairs
    inside = [pair for pair in matched.pairs if folders[0] in pair[0].parents]
    if not inside:
        raise UserError(
            f"--val {folders[0]}: holds no labelled image of {images}; expected a folder in it, or "
            "a folder of images and one of masks"
        )
    return inside


def _common_suffix(images: list[str], masks: list[str]) -> str:
    """The most frequent rest of masks' names after images' names; '' where names are equal."""
    if set(images) & set(masks):
        return ""
    rests = Counter(
        mask[len(image) :] for image in images[:50] for mask in masks if mask.startswith(image)
    )
    return rests.most_common(1)[0][0] if rests else ""


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
