"""Which images there are to predict, and which of them are done."""

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
from util.errors import UserError, and_others
from util.io import make_folder, write_text
from util.paths import nearest

T = TypeVar("T")


def find_images(paths: list[Path], out: Path, option: str = "--images") -> dict[str, Path]:
    """Image files by the name (without suffix) that their mask will have; what lies in `out`, and
    what is hidden, is left out."""
    found: dict[str, Path] = {}
    for path in paths:
        if not os.path.exists(path):  # False too for what can be no path
            raise UserError(f"{option} {path}: no such file or folder{nearest(path)}")
        inside = [path.name]
        if folder := path.is_dir():
            inside = list(names_by_stem(path, skip=path / os.path.relpath(out, path)).values())
        for file in inside:
            name, image = os.path.splitext(file)[0], path / file if folder else path
            if found.setdefault(name, image) != image:
                raise UserError(
                    f"{option}: {found[name]} and {image} would share the mask {name}.png"
                )
    return found


def later_images(
    images: dict[str, Path], second: list[Path] | None, out: Path, data: Data
) -> dict[str, list[Path]]:
    """The later image of each, by name, where the config's samples are pairs; else none.

    Raises `UserError` where one is missing, and where there are some though samples are no pairs.
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
    """What decides how a mask looks: the same text means the same masks; `more`: names of options
    that do."""
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
    """Whether images much larger than crops go through the network in parts: unless the user chose
    a mode."""
    return not any(setting.startswith("evaluation.mode") for setting in options.set)


def wants_windows(side: float, crop: int) -> bool:
    """Tell whether an image's longer side (pixels) is much longer than the crops of training, so
    that the whole image may not fit into memory."""
    return side > 2.5 * crop and side > 1500


@contextmanager
def noting(faults: list[UserError], file: Path) -> Iterator[None]:
    """Notes what is wrong with an image, or that memory does not suffice for it, and goes on."""
    try:
        yield
    except UserError as error:
        faults.append(error)
    except (MemoryError, RuntimeError) as error:
        if lack_of_memory(error) is None:
            raise
        size = "{}x{}".format(*image_size(file))
        hint = "--set evaluation.mode=sliding_window needs less, the less the smaller crop_size"
        faults.append(UserError(f"{file}: out of memory for {size} pixels; {hint}"))


def to_do(
    images: dict[str, T], files: Callable[[str], Sequence[Path]], folder: Path, record: str
) -> dict[str, T]:
    """The images whose files are not there yet; notes in the folder what makes them.

    Args:
        files: those of an image, by its name.
        record: as `made_by` returns it.

    Raises `UserError` where files are in the way that another command made.
    """
    path = folder / "made_by.json"
    missing = {
        name: image
        for name, image in images.items()
        if not all(os.path.lexists(file) for file in files(name))
    }
    if path.exists():
        if path.read_text(encoding="utf-8") != record:
            raise UserError(
                f"{path}: these predictions were made with another checkpoint, config or options; "
                "choose another folder"
            )
        return missing
    for file in (file for name in images for file in files(name)):
        if os.path.lexists(file):
            raise UserError(f"{file}: exists already; choose another folder")
    make_folder(path.parent)
    write_text(path, record)
    return missing
