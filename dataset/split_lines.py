"""Lines of split files: one sample each, `image mask`, `image` or `image None`.

Of pairs, `first second mask`, `first second`, or a name that is in three folders. A tab separates
paths that contain spaces.
"""

import os
from pathlib import Path

from dataset.image_files import SUFFIXES
from dataset.samples import Origin, Sample
from util.config.data import Pair
from util.errors import UserError

NO_IMAGE = "names no image file; expected a path that ends in .jpg, .png or the like"
"""The message for a line that is not quoted: `data.labeled` in a stranger's config may name any
file."""


def parse_line(line: str, number: int, masks: bool, pair: Pair | None, origin: Origin) -> Sample:
    """Return the sample of a line.

    Raises `UserError` for a missing mask or second image, for too many parts, and for a path that
    leaves the root.
    """
    if origin.folders is not None:  # data.pair names three folders
        (name,) = _split(line, ["name"])
        folders = origin.folders.first, origin.folders.second, origin.folders.masks
        first, second, mask = ((folder / name).as_posix() for folder in folders)
        return Sample(first, mask if masks else None, number, origin, second)
    columns = ["image", "mask"] if pair is None else ["first", "second", "mask"]
    first, *others = _split(line, columns)
    is_whole = len(others) == len(columns) - 1
    mask_path = others[-1] if is_whole and others[-1] != "None" else None
    if pair is not None and not others:
        raise UserError(f"'{first}' has no second image; expected '{' '.join(columns)}'")
    if masks and mask_path is None:
        raise UserError(f"'{first}' has no mask; expected '{' '.join(columns)}'")
    second_path = others[0] if pair is not None else None
    return Sample(first, mask_path if masks else None, number, origin, second_path)


def _split(line: str, columns: list[str]) -> list[str]:
    """Return the paths of a line; raises `UserError` for too many, and for one that leaves the
    root."""
    parts = [part.strip() for part in line.split("\t")] if "\t" in line else line.split()
    parts = [part for part in parts if part]
    if len(parts) > len(columns):
        raise UserError(
            f"{len(parts)} parts, expected '{' '.join(columns)}'; separate paths that contain "
            "spaces by a tab"
        )
    for part in parts:
        if leads_out(part):
            raise UserError(f"'{part}' leads out of the data's root; use a path below it")
    return parts


def leads_out(path: str) -> bool:
    """Return whether a path leaves the folder that it is relative to."""
    return os.path.isabs(path) or (".." in path and ".." in Path(path).parts)


def names_image(line: str) -> bool:
    """Return whether a message may quote a line: some part of it has the suffix of an image."""
    return any(part.lower().endswith(tuple(SUFFIXES)) for part in line.split())
