"""Images to predict, and their prediction mode; imports no PyTorch."""

import os
from collections.abc import Sequence
from pathlib import Path

from dataset.folders import names_by_stem
from util.config.data import Data
from util.errors import UserError, and_others
from util.paths import nearest_hint


def find_images(paths: Sequence[Path], out: Path, option: str = "--images") -> dict[str, Path]:
    """Return image files by the names of their masks (without suffix), from files and folders.

    Hidden files and the folder `out` are left out.
    """
    images: dict[str, Path] = {}
    for path in paths:
        if not os.path.exists(path):  # False too for text that cannot be a path
            raise UserError(f"{option} {path}: no such file or folder{nearest_hint(path)}")
        folder, inside = path.parent, [path.name]
        if path.is_dir():
            folder, skip = path, path / os.path.relpath(out, path)
            inside = list(names_by_stem(path, skip=skip).values())
        for file in inside:
            name, image = os.path.splitext(file)[0], folder / file
            if images.setdefault(name, image) != image:
                raise UserError(
                    f"{option}: {images[name]} and {image} would share the mask {name}.png"
                )
    return images


def find_samples(
    images: Sequence[Path], second: Sequence[Path] | None, out: Path, data: Data
) -> dict[str, list[Path]]:
    """Return the files of each sample by the name of its mask: one image, or the earlier and later
    image of a pair (`second`: files and folders of later images).

    Raises `UserError` for a missing later image, and for `second` without pairs.
    """
    earlier = find_images(images, out)
    if data.pair is None:
        if second:
            raise UserError(
                "--second: not allowed, since the config's samples are single images. Fix: omit "
                "--second, or set data.pair"
            )
        return {name: [path] for name, path in earlier.items()}
    if not second:
        raise UserError(
            "--second: missing; the config's samples are pairs. Fix: name the later images with "
            "--second"
        )
    later = find_images(second, out, "--second")
    if lacking := [path for name, path in earlier.items() if name not in later]:
        raise UserError(
            f"--second: no later image has the name of {lacking[0]}{and_others(lacking)}"
        )
    return {name: [path, later[name]] for name, path in earlier.items()}


def wants_windows(side: float, crop: int) -> bool:
    """Return True if an image's longer side (pixels) is much longer than the crops of training, so
    that the whole image may not fit into memory."""
    return side > 2.5 * crop and side > 1500
