"""Folders of predictions, which an interrupted command continues: the options they were made with,
and which images are finished."""

import argparse
import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from dataset.folders import MADE_BY, PREDICTION_FOLDERS
from dataset.image_files import image_size
from util.cli import out_of_memory_advice
from util.config.schema import Config
from util.errors import UserError, counted, printable
from util.io import csv_rows, csv_text, file_state, make_folder, write_atomically, write_text

T = TypeVar("T")


def folder_record(args: argparse.Namespace, config: Config, names: Sequence[str]) -> dict[str, Any]:
    """Return the record of all that determines the files of a folder, as JSON stores it; `names`:
    options of the command that change the files."""
    checkpoint = args.checkpoint.stat()
    record = {
        "checkpoint": str(args.checkpoint.resolve()),
        "bytes": checkpoint.st_size,
        "modified": checkpoint.st_mtime,
        "which": args.which,
        **{name: getattr(args, name) for name in names},
        "config": config.model_dump(mode="json"),
    }
    return json.loads(json.dumps(record))


def unfinished_images(
    images: dict[str, T],
    sources: Callable[[T], Sequence[Path]],
    files: Callable[[str], Sequence[Path]],
    table: "ImageTable",
    record: dict[str, Any],
) -> dict[str, T]:
    """Return the images without a line in `table` or without all files; print the number of the
    others.

    Writes `record`, from `folder_record`, into the folder of `table`; raises `UserError` where it
    differs, where folders of predictions exist without it, and where they were made from other
    images.

    Args:
        sources: returns the image files of an image.
        files: returns the files of an image, by its name.
    """
    folder = table.path.parent
    made_from = _open_folder(folder, record)
    listed = table.rows()
    missing = {
        name: image
        for name, image in images.items()
        if printable(name) not in listed or not all(map(os.path.lexists, files(name)))
    }
    for name in images.keys() - missing.keys():
        now = _identity(sources(images[name]))
        if (then := made_from.get(name, now)) != now:
            raise UserError(
                f"{files(name)[0]}: was predicted from {then[0][0]}; that image has changed, or is "
                f"now {now[0][0]}. Fix: choose another folder"
            )
    made_from |= {name: _identity(sources(image)) for name, image in missing.items()}
    write_text(folder / MADE_BY, json.dumps(record | {"images": made_from}, indent=1) + "\n")
    if skipped := len(images) - len(missing):
        print(f"skipped  {counted(skipped, 'image')} already predicted")
    return missing


def _open_folder(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Return the images that the folder was made from; none, and make it, where it is new."""
    path = folder / MADE_BY
    if path.exists():
        made_from, before = _read_record(path)
        if before != record:
            raise UserError(
                f"{path}: these predictions were made with another checkpoint, config or "
                "options. Fix: choose another folder"
            )
        return made_from
    # Predictions among the user's own masks would be taken for ground truth later.
    if existing := next((p for p in sorted(PREDICTION_FOLDERS) if os.path.lexists(folder / p)), ""):
        raise UserError(
            f"{folder / existing}: exists already, and was not written by this command. Fix: "
            "choose another folder"
        )
    make_folder(folder)
    return {}


def _read_record(path: Path) -> tuple[dict[str, Any], Any]:
    """Return images and other fields of made_by.json; `({}, None)` if it cannot be parsed."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return dict(record.pop("images", {})), record
    except (OSError, ValueError, TypeError, AttributeError):
        return {}, None


def _identity(sources: Sequence[Path]) -> list[list[Any]]:
    """Return path, size and time of files, as in JSON; missing ones are reported later."""
    states: list[list[Any]] = []
    for path in sources:
        try:
            states.append([*file_state(path)])
        except OSError:
            states.append([str(path), None, None])
    return states


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
        fix = (
            "--set evaluation.mode=sliding_window with a smaller crop_size; if it is set, cut the "
            "image into tiles (predict.py --geotiff reads a TIFF window by window)"
        )
        errors.append(UserError(f"{file}: out of memory for an image of {size} pixels. Fix: {fix}"))


class ImageTable:
    """A CSV file with a line for each finished image: its name, and values in `columns`."""

    def __init__(self, path: Path, columns: Sequence[str]):
        self.path = path
        self.head = ["image", *columns]

    def start(self, images: Iterable[str]) -> None:
        """Write the file without lines of `images`, which will be added, and without torn lines.

        Raises `UserError` as `rows`.
        """
        new = set(map(printable, images))
        kept = [[name, *values] for name, values in self.rows().items() if name not in new]
        text = csv_text([self.head, *kept])
        make_folder(self.path.parent)
        write_atomically(self.path, lambda file: file.write(text.encode()))

    def add(self, name: str, values: Iterable[object]) -> None:
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(csv_text([[name, *values]]))
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error})") from None

    def rows(self) -> dict[str, list[str]]:
        """Return the values of each image, by its `printable` name; none without a file.

        Skips lines that a killed command or a full disk has torn. Raises `UserError` for a file
        with other columns.
        """
        try:
            whole, end, _torn = self.path.read_bytes().rpartition(b"\n")
            text = io.StringIO((whole + end).decode(), newline="")
            head, *lines = csv_rows(text) or [self.head]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, csv.Error) as error:
            raise UserError(f"{self.path}: cannot be read ({error})") from None
        if head != self.head:
            raise UserError(
                f"{self.path}: exists with other columns, such as other classes. Fix: choose "
                "another folder"
            )
        return {line[0]: line[1:] for line in lines if len(line) == len(head)}
