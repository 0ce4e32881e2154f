"""Matching of images with masks by name, and the sets of a config."""

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
Patterns = tuple[str, str]
"""Patterns of the names of images and of masks."""
SHARE = 0.1
"""Share of the labelled images to validate on by default."""
FOLDERS = {"val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""Folders in that of the images which hold a set."""


class Matched(NamedTuple):
    """Images with their masks, and the files without a partner."""

    pairs: list[ImageAndMask]
    without_mask: list[Path]
    spare_masks: int
    suffix: str
    """Text that masks' names have after their images' names."""


class Parts(NamedTuple):
    """The image lists of a config."""

    labeled: list[ImageAndMask]
    unlabeled: list[tuple[Path]]
    val: list[ImageAndMask]
    test: list[ImageAndMask]

    def with_masks(self) -> list[ImageAndMask]:
        return [*self.labeled, *self.val, *self.test]


def match(images: Path, masks: Path, patterns: Patterns = ("*", "*")) -> Matched:
    """Match images and masks of one relative name but for the suffix, such as a/b.jpg and a/b.png
    or a/b_mask.png; or of one `*` in the patterns.

    Raises `UserError` when none match.
    """
    if (images, patterns[0]) == (masks, patterns[1]):
        raise UserError(
            f"--masks {masks}: the folder of the images; put masks in a folder of their own, or "
            "tell them apart with --image-pattern and --mask-pattern"
        )
    inside = images == masks
    by_image = files_by_stem(images, None if inside else masks, patterns[0])
    by_mask = files_by_stem(masks, None if inside else images, patterns[1])
    suffix = _common_suffix(list(by_image), list(by_mask))
    pairs, lone = [], []
    for stem, file in by_image.items():
        if mask := by_mask.get(stem + suffix):
            pairs.append((file, mask))
        else:
            lone.append(file)
    if not pairs:
        raise UserError(
            f"--masks {masks}: no mask has the name of an image; expected such as "
            f"{next(iter(by_image))}.png, found {next(iter(by_mask.values())).relative_to(masks)}; "
            "other names fit with --image-pattern and --mask-pattern, such as '*_image.png'"
        )
    return Matched(pairs, lone, len(by_mask) - len(pairs), suffix)


def part(
    matched: Matched,
    images: Path,
    unlabeled: Path | None,
    val: Sequence[str] | None,
    seed: int,
    patterns: Patterns = ("*", "*"),
) -> Parts:
    """Divide images into sets; images without masks are unlabelled, a folder `test` is for testing.

    Args:
        val: as on the command line: a share, drawn by the seed; a folder below that of the images;
            or a folder of images and one of masks. None: the folder `val`, if there is one, else
            `SHARE`, and up to `ENOUGH` where this leaves two thirds to train on.

    Raises `UserError` for an impossible share, and when a part is left without images.
    """
    by_folder = {kind: _in_folders(matched, images, names) for kind, names in FOLDERS.items()}
    if not val and by_folder["val"]:
        held_out = by_folder["val"]
    elif val and (len(val) > 1 or not _is_number(val[0])):
        held_out = _pairs_in([absolute(Path(folder)) for folder in val], matched, images, patterns)
    else:
        test = {image for image, _ in by_folder["test"]}
        rest = [pair for pair in matched.pairs if pair[0] not in test]
        held_out = _draw(rest, val[0] if val else None, seed)
    taken = {image for image, _ in held_out}
    test_pairs = [pair for pair in by_folder["test"] if pair[0] not in taken]
    taken |= {image for image, _ in test_pairs}
    labeled = [pair for pair in matched.pairs if pair[0] not in taken]
    if not labeled:
        given = " ".join(val or ["(default)"])
        raise UserError(f"--val {given}: takes all labelled images; leave some to train on")
    extra = list(files_by_stem(absolute(unlabeled)).values()) if unlabeled else []
    taken |= {image for image, _ in labeled}
    free = dict.fromkeys(file for file in [*matched.without_mask, *extra] if file not in taken)
    return Parts(labeled, [(file,) for file in free], held_out, test_pairs)


def _in_folders(matched: Matched, images: Path, names: Sequence[str]) -> list[ImageAndMask]:
    """Return the pairs below folders of these names; none where that leaves no pair to train on."""
    found = [
        pair
        for pair in matched.pairs
        if len(inside := pair[0].relative_to(images).parts) > 1 and inside[0].lower() in names
    ]
    return found if len(found) < len(matched.pairs) else []


def _draw(pairs: list[ImageAndMask], share: str | None, seed: int) -> list[ImageAndMask]:
    """Draw the share of the pairs to validate on; raises `UserError` for an impossible share."""
    number = len(pairs)
    default = max(SHARE, min(ENOUGH, max(1, number // 3)) / max(number, 1))
    wanted = default if share is None else float(share)
    if not 0 < wanted < 1 or number < 2:
        raise UserError(
            f"--val {share or default}: expected a share between 0 and 1 of at least 2 images, "
            f"found {number} images with masks"
        )
    count = min(max(1, round(wanted * number)), number - 1)
    order = np.random.default_rng(seed).permutation(number)
    return [pairs[i] for i in sorted(order[:count])]


def later_images(
    parts: Parts, images: Path, second: Path, skip: Path | None, pattern: str = "*"
) -> dict[Path, Path]:
    """Return the later image of each one in `parts`: its relative name is the same but for the
    suffix.

    Raises `UserError` for a name that is in one of the two folders only.
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
    for image, *_ in (sample for part in parts for sample in part):
        if image not in later:
            raise UserError(
                f"{image}: not in --images {images}, so it has no later image in --second; of "
                "pairs, --val is a share or a folder in --images, and those without masks are "
                "unlabelled (without --unlabeled)"
            )
    return later


def absolute(path: Path) -> Path:
    """Return an absolute path without '..'; links stay as they are."""
    return Path(os.path.abspath(path))


def _pairs_in(
    folders: list[Path], matched: Matched, images: Path, patterns: Patterns
) -> list[ImageAndMask]:
    """Return the pairs of `--val FOLDER` or `--val IMAGES MASKS`."""
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
    """Return the most frequent rest of masks' names after images' names; '' for equal names."""
    if set(images) & set(masks):
        return ""
    rests = Counter(
        mask[len(image) :] for image in images[:50] for mask in masks if mask.startswith(image)
    )
    return rests.most_common(1)[0][0] if rests else ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
