"""Images to predict: where they are, and which are done."""

import argparse
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from dataset.folders import names_by_stem
from dataset.image_files import image_size
from util.cli import lack_of_memory
from util.config.data import Data
from util.config.schema import Config
from util.errors import UserError, and_others, counted
from util.io import make_folder, write_text
from util.paths import nearest

T = TypeVar("T")


def find_images(paths: list[Path], out: Path, option: str = "--images") -> dict[str, Path]:
    """Return image files by the names of their masks (without suffix), from files and folders.

    Hidden files and the folder `out` are left out.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if not os.path.exists(path):  # False too for text that cannot be a path
            raise UserError(f"{option} {path}: no such file or folder{nearest(path)}")
        folder, inside = path.parent, [path.name]
        if path.is_dir():
            folder, skip = path, path / os.path.relpath(out, path)
            inside = list(names_by_stem(path, skip=skip).values())
        for file in inside:
            name, image = os.path.splitext(file)[0], folder / file
            if found.setdefault(name, image) != image:
                raise UserError(
                    f"{option}: {found[name]} and {image} would share the mask {name}.png"
                )
    return found


def later_images(
    images: dict[str, Path], second: list[Path] | None, out: Path, data: Data
) -> dict[str, list[Path]]:
    """Return the later image of each pair by name; empty where samples are single images.

    Raises `UserError` where a later image is missing, and for `second` without pairs.
    """
    if data.pair is None:
        if second:
            raise UserError("--second: the config's samples are single images (data.pair is null)")
        return {}
    if not second:
        raise UserError("--second: the config's samples are pairs; name the later images with it")
    found = find_images(second, out, "--second")
    if lacking := [path for name, path in images.items() if name not in found]:
        raise UserError(
            f"--second: no later image has the name of {lacking[0]}{and_others(lacking)}"
        )
    return {name: [found[name]] for name in images}


def made_by(options: argparse.Namespace, config: Config, *more: str) -> str:
    """Return checkpoint, config and options that determine a mask, as JSON.

    `more`: names of further options that do.
    """
    file = options.checkpoint.stat()
    record = {
        "checkpoint": str(options.checkpoint.resolve()),
        "bytes": file.st_size,
        "modified": file.st_mtime,
        "which": options.which,
        **{name: getattr(options, name) for name in more},
        "config": config.model_dump(mode="json"),
    }
    return json.dumps(record, indent=1) + "\n"


def may_choose_windows(options: argparse.Namespace) -> bool:
    """Tell whether images much larger than crops are predicted in sliding windows: unless the user
    set a mode."""
    return not any(setting.startswith("evaluation.mode") for setting in options.set)


def wants_windows(side: float, crop: int) -> bool:
    """Tell whether an image's longer side (pixels) is much longer than the crops of training, so
    that the whole image may not fit into memory."""
    return side > 2.5 * crop and side > 1500


@contextmanager
def noting(errors: list[UserError], file: Path) -> Iterator[None]:
    """Append the error of an image to a list instead of raising it, also out of memory."""
    try:
        yield
    except UserError as error:
        errors.append(error)
    except (MemoryError, RuntimeError) as error:
        if lack_of_memory(error) is None:
            raise
        size = "{}x{}".format(*image_size(file))
        hint = "--set evaluation.mode=sliding_window with a smaller crop_size needs less"
        errors.append(UserError(f"{file}: out of memory for {size} pixels; {hint}"))


def to_do(
    images: dict[str, T], files: Callable[[str], Sequence[Path]], folder: Path, record: str
) -> dict[str, T]:
    """Return the images whose files do not all exist; print how many do.

    Writes `record`, the result of `made_by`, into the folder. Raises `UserError` for files of
    another command.

    Args:
        files: returns the files of an image, by its name.
    """
    path = folder / "made_by.json"
    if path.exists():
        if path.read_text(encoding="utf-8") != record:
            raise UserError(
                f"{path}: these predictions were made with another checkpoint, config or options; "
                "choose another folder"
            )
    else:
        for file in (file for name in images for file in files(name)):
            if os.path.lexists(file):
                raise UserError(f"{file}: exists already; choose another folder")
        make_folder(path.parent)
        write_text(path, record)
    missing = {
        name: image
        for name, image in images.items()
        if not all(os.path.lexists(file) for file in files(name))
    }
    if skipped := len(images) - len(missing):
        print(f"skipped  {counted(skipped, 'image')} with masks already")
    return missing
