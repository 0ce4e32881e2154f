"""Split files of a dataset, and its config beside them."""

import os
from collections.abc import Mapping
from pathlib import Path

from dataset.split_files import list_line, write_lists
from tools.prepare.own.match import Parts
from util.errors import UserError


def shortest(path: Path) -> str:
    """Return a path relative to the current folder if it is below, else as it is."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def lines_of(
    parts: Parts, later: Mapping[Path, Path], folder: Path
) -> tuple[dict[Path, list[str]], Path]:
    """Return the lines of each split file that has images, and the common root of all files."""
    listed = {
        folder / f"{kind}.txt": [
            (image, *([later[image]] if later else []), *mask) for image, *mask in samples
        ]
        for kind, samples in parts._asdict().items()
        if samples
    }
    files = [file for samples in listed.values() for paths in samples for file in paths]
    root = Path(os.path.commonpath({file.parent for file in files}))
    lines = {
        path: [list_line(*(f.relative_to(root).as_posix() for f in paths)) for paths in samples]
        for path, samples in listed.items()
    }
    return lines, root


def write_new(out: Path, text: str, lists: dict[Path, list[str]]) -> None:
    """Write config and split files, or none of them."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error})") from None
    try:
        write_lists(lists)
    except UserError:
        out.unlink()
        raise
