"""CSV tables with a line for each finished image."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from util.errors import UserError, printable
from util.io import csv_rows, csv_text, make_folder, write_atomically


class ImageTable:
    """A CSV file with a line for each image; lines of other images in it are kept.

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
                f"{path}: exists and its columns are others, such as other classes; choose "
                "another folder"
            )
        new = set(map(printable, images))
        kept = [line for line in lines if line and line[0] not in new]
        make_folder(path.parent)
        text = csv_text([head, *kept])
        write_atomically(path, lambda file: file.write(text.encode()))

    def add(self, name: str, values: Iterable[object]) -> None:
        """Add an image."""
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(csv_text([[name, *values]]))
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error})") from None

    def lines(self) -> list[list[str]]:
        """Return all lines, the head first; none where there is no file."""
        try:
            with self.path.open(encoding="utf-8", newline="") as file:
                return csv_rows(file)
        except FileNotFoundError:
            return []
        except (OSError, ValueError, csv.Error) as error:
            raise UserError(f"{self.path}: cannot be read ({error})") from None
