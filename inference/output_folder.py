"""Folders of predictions, which an interrupted command continues: the options they were made with,
and which images are finished."""

import argparse
import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from dataset.image_files import image_size
from util.cli import out_of_memory_advice
from util.config.schema import Config
from util.errors import UserError, counted, printable
from util.io import csv_rows, csv_text, make_folder, write_atomically, write_text

T = TypeVar("T")


def unfinished_images(
    images: dict[str, T],
    files: Callable[[str], Sequence[Path]],
    folder: Path,
    options: argparse.Namespace,
    config: Config,
    names: Sequence[str],
) -> dict[str, T]:
    """Return the images whose files do not all exist; print the number of the others.

    Writes made_by.json with all that determines the files into the folder; raises `UserError` where
    it differs, or where files exist without it.

    Args:
        files: returns the files of an image, by its name.
        names: options of the command that change the files.
    """
    checkpoint, path = options.checkpoint.stat(), folder / "made_by.json"
    made_by = {
        "checkpoint": str(options.checkpoint.resolve()),
        "bytes": checkpoint.st_size,
        "modified": checkpoint.st_mtime,
        "which": options.which,
        **{name: getattr(options, name) for name in names},
        "config": config.model_dump(mode="json"),
    }
    record = json.dumps(made_by, indent=1) + "\n"
    if not path.exists():
        for file in (file for name in images for file in files(name)):
            if os.path.lexists(file):
                raise UserError(f"{file}: exists already; choose another folder")
        make_folder(folder)
        write_text(path, record)
    elif path.read_text(encoding="utf-8") != record:
        raise UserError(
            f"{path}: these predictions were made with another checkpoint, config or options; "
            "choose another folder"
        )
    missing = {
        name: image
        for name, image in images.items()
        if not all(os.path.lexists(file) for file in files(name))
    }
    if skipped := len(images) - len(missing):
        print(f"skipped  {counted(skipped, 'image')} with masks already")
    return missing


@contextmanager
def collect_errors(errors: list[UserError], file: Path) -> Iterator[None]:
    """Append the error of an image to a list instead of raising it, also out of memory."""
    try:
        yield
    except UserError as error:
        errors.append(error)
    except (MemoryError, RuntimeError) as error:
        if out_of_memory_advice(error) is None:
            raise
        size = "{}x{}".format(*image_size(file))
        hint = "--set evaluation.mode=sliding_window with a smaller crop_size needs less"
        errors.append(UserError(f"{file}: out of memory for {size} pixels; {hint}"))


class ImageTable:
    """A CSV file with a line for each finished image; lines of other images in it are kept.

    Raises `UserError` for a file with other columns.

    Args:
        columns: names of the values of `add`.
        images: names of the images that will be added.
    """

    def __init__(self, path: Path, columns: Sequence[str], images: Iterable[str]):
        self.path = path
        head, *lines = self.lines() or [["image", *columns]]
        if head != ["image", *columns]:
            raise UserError(
                f"{path}: exists with other columns, such as other classes; choose another folder"
            )
        new = set(map(printable, images))
        text = csv_text([head, *(line for line in lines if line and line[0] not in new)])
        make_folder(path.parent)
        write_atomically(path, lambda file: file.write(text.encode()))

    def add(self, name: str, values: Iterable[object]) -> None:
        """Add an image."""
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(csv_text([[name, *values]]))
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error})") from None

    def lines(self) -> list[list[str]]:
        """Return all lines, the head first; none without a file."""
        try:
            with self.path.open(encoding="utf-8", newline="") as file:
                return csv_rows(file)
        except FileNotFoundError:
            return []
        except (OSError, ValueError, csv.Error) as error:
            raise UserError(f"{self.path}: cannot be read ({error})") from None
