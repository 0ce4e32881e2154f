"""A config and lists for images and masks of one's own: looks at the files, then writes."""

import argparse
import os
from pathlib import Path

from data_tools.prepare.classes import MAX_CLASSES, choose_classes
from data_tools.prepare.config_text import commands, config_text
from data_tools.prepare.match import Pair, Parts, absolute, match, part
from data_tools.prepare.settings import choose_settings
from data_tools.prepare.summary import pixel_shares, summary
from data_tools.prepare.survey import (
    ImageFile,
    MaskFile,
    look_at,
    look_at_image,
    look_at_mask,
    together,
)
from dataset.files import size_mismatch
from dataset.lists import list_line, write_lists
from util.config_file import load_config
from util.errors import UserError
from util.label_map import parse_key


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--images", type=Path, required=True, help="folder of images")
    add("--masks", type=Path, required=True, help="folder of masks, named as their images")
    add("--unlabeled", type=Path, help="folder of further images, without masks")
    add("--val", nargs="+", default=["0.1"], metavar="SHARE|DIR",
        help="images to validate on: a share of the labelled ones (default 0.1), a folder in "
        "--images, or a folder of images and one of masks")  # fmt: skip
    add("--out", type=Path, required=True, help="config to write")
    add("--lists", type=Path, help="folder for the lists, by default splits/<name of the config>")
    add("--classes", help="names, in the order of values or colours: background,road,roof")
    add("--ignore", nargs="+", metavar="VALUE", help="values or colours (r,g,b) that do not count")
    add("--seed", type=int, default=0, help="of the share of validation images")


def run(options: argparse.Namespace) -> None:
    """Look at the data, write config and lists, and say what was found.

    Raises `UserError` for data that cannot be trained on and for files that would be overwritten.
    """
    lists = options.lists or Path("splits") / options.out.stem
    for path in (options.out, *(lists / f"{kind}.txt" for kind in Parts._fields)):
        if path.exists():
            raise UserError(f"{path}: exists already; choose another --out or --lists")
    names = None if options.classes is None else _names(options.classes)
    ignored = None if options.ignore is None else [_key(key) for key in options.ignore]

    image_folder = absolute(options.images)
    matched = match(image_folder, absolute(options.masks))
    parts = part(matched, image_folder, options.unlabeled, options.val, options.seed)
    pairs = [*parts.labeled, *parts.val]
    images = look_at([image for image, _ in pairs], look_at_image, "images")
    files = look_at([mask for _, mask in pairs], look_at_mask, "masks")
    _equal_sizes(pairs, images, files)
    images += look_at([image for (image,) in parts.unlabeled], look_at_image, "unlabelled images")
    masks = together(files)
    classes = choose_classes(masks, names, ignored)
    settings = choose_settings(images, max(len(parts.labeled), len(parts.unlabeled)))

    root = _common_root(parts)
    lines = _lines(parts, lists, root)
    data = {"name": options.out.stem, "root": _shortest(root)}
    data |= {path.stem: str(path) for path in lines}
    text = config_text(options.out, data, classes, pixel_shares(masks), settings)
    _write(options.out, text, lines)
    load_config(options.out)  # what was written can be read
    print(summary(matched, parts, images, masks, classes))
    print(f"lists    {lists}/: {', '.join(f'{len(v)} {k}' for k, v in parts._asdict().items())}")
    print(f"config   {options.out}: crop {settings.crop_size}, evaluation {settings.mode}")
    check, train = commands(options.out, "unlabeled" in data)
    print(f"check    {check}\ntrain    {train}  # first with --dry-run")


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if "" in names or len(set(names)) < len(names) or len(names) > MAX_CLASSES:
        raise UserError(
            f"--classes {text}: expected distinct names, separated by commas, at most {MAX_CLASSES}"
        )
    return names


def _key(text: str) -> str:
    try:
        return parse_key(text)
    except ValueError as error:
        raise UserError(f"--ignore: {error}") from None


def _equal_sizes(pairs: list[Pair], images: list[ImageFile], masks: list[MaskFile]) -> None:
    wrong = [
        size_mismatch(*paths, image.size, mask.size)
        for paths, image, mask in zip(pairs, images, masks, strict=True)
        if image.size != mask.size
    ]
    if wrong:
        more = f" (and {len(wrong) - 1} others)" if len(wrong) > 1 else ""
        raise UserError(f"{wrong[0]}{more}")


def _common_root(parts: Parts) -> Path:
    folders = {path.parent for listed in parts for paths in listed for path in paths}
    return Path(os.path.commonpath(folders))


def _shortest(path: Path) -> str:
    """A path as the working directory sees it, where it is below."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _lines(parts: Parts, folder: Path, root: Path) -> dict[Path, list[str]]:
    """The lines of the lists that have images, by their paths."""
    return {
        folder / f"{kind}.txt": [
            list_line(*(path.relative_to(root).as_posix() for path in paths)) for paths in listed
        ]
        for kind, listed in parts._asdict().items()
        if listed
    }


def _write(out: Path, text: str, lists: dict[Path, list[str]]) -> None:
    """Write config and lists, or none of them."""
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
