"""areas.csv: how much of each image is which class."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from util.errors import UserError
from util.writing import csv_text, write_atomically


class AreaTable:
    """A line for each image: its name, width and height, and the pixels of each class.

    Lines of other images that the file has already stay; one with other columns is a `UserError`.

    Args:
        images: names of those that will be added.
    """

    def __init__(self, path: Path, classes: Sequence[str], images: Iterable[str]):
        self.path, self.classes = path, len(classes)
        columns = ["image", "width", "height", *classes]
        head, *lines = self._read() or [columns]
        if head != columns:
            raise UserError(
                f"{path}: exists, and its columns are not these classes; choose another folder"
            )
        new = set(map(_as_text, images))
        kept = [line for line in lines if line and line[0] not in new]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path.parent}: cannot be made ({error})") from None
        text = csv_text([columns, *kept])
        write_atomically(path, lambda file: file.write(text.encode()))

    def add(self, name: str, mask: np.ndarray) -> None:
        """Add an image with its class indices `[H, W]`."""
        pixels = np.bincount(mask.ravel(), minlength=256)[: self.classes].tolist()
        row = [_as_text(name), mask.shape[1], mask.shape[0], *pixels]
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(csv_text([row]))
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error})") from None

    def _read(self) -> list[list[str]]:
        try:
            with self.path.open(encoding="utf-8", newline="") as file:
                return list(csv.reader(file))
        except FileNotFoundError:
            return []
        except (OSError, ValueError, csv.Error) as error:
            raise UserError(f"{self.path}: cannot be read ({error})") from None


def _as_text(name: str) -> str:
    """A name with escapes for what is no text in any encoding."""
    return name.encode("utf-8", "backslashreplace").decode()
