"""Image files: names, formats and headers."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from dataset import tiff
from util.errors import UserError, reason

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")
"""Pillow's names of what these files may hold: it knows others, some of which run programs."""
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""

MAX_MEGAPIXELS = 179
"""Pillow's own limit; `data.max_megapixels` is another."""


def open_image(file: Path | IO[bytes]) -> ImageFile.ImageFile:
    """Open a file of one of `FORMATS`, whatever its name; raises as Pillow does."""
    Image.MAX_IMAGE_PIXELS = None  # a global of Pillow's; `refuse_large` limits sizes instead
    return Image.open(file, formats=FORMATS)


def is_deep(image: Image.Image) -> bool:
    """Whether its one channel has more than 8 bits: Pillow would clip at 255 instead of scaling."""
    return image.mode.startswith("I") or image.mode == "F"


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) as a viewer shows it, from the header alone; raises as `read_content`."""
    return _header(path)[0]


def orientation(path: Path) -> int:
    """The EXIF orientation of a file, 1 (as it is stored) to 8; 5 to 8 swap width and height."""
    return _header(path)[1]


def _header(path: Path) -> tuple[tuple[int, int], int]:
    """Size as shown and EXIF orientation; raises `UserError` as `read_content` does."""
    with reading(path):
        try:
            with open_image(path) as image:
                turn, (w, h) = _exif_orientation(image), image.size
                if image.format == "TIFF":  # whose reader swaps them itself
                    return (w, h), turn
        except UnidentifiedImageError:
            if path.suffix.lower() not in tiff.TIFF_SUFFIXES:
                raise
            (w, h), turn = tiff.tiff_header(path)
    return (h, w) if turn in SIDEWAYS else (w, h), turn


def _exif_orientation(image: Image.Image) -> int:
    """The EXIF orientation of an opened file; 1 where its EXIF is damaged."""
    try:
        # The base class's method: that of PNG would decode all pixels to look behind them.
        return Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # as below
        return 1


def decode(image: ImageFile.ImageFile) -> Image.Image:
    """Decode an opened file and apply its EXIF orientation; raises as Pillow does."""
    if image.format == "TIFF":
        image.filename = ""  # else Pillow maps grey ones into memory as if none were turned
    image.load()
    with suppress(Exception):  # of damaged EXIF, the more so when it is written anew
        ImageOps.exif_transpose(image, in_place=True)
    return image


def refuse_large(path: Path, size: tuple[int, int], max_megapixels: int) -> None:
    """Raise `UserError` for an image of too many pixels to be decoded."""
    width, height = size
    if width * height > max_megapixels * 10**6:
        raise UserError(
            f"{path}: {width}x{height} pixels, expected at most {max_megapixels} "
            "million; raise data.max_megapixels (prepare init: --max-megapixels) if you trust "
            "the file, or cut it into tiles"
        )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what a reader raises into a `UserError` for a file that is missing or damaged.

    What is no regular file, such as a named pipe, is refused: opening it could wait forever.
    """
    try:
        if os.path.exists(path) and not (path.is_file() or path.is_dir()):
            raise UserError(f"{path}: not a regular file; expected an image")
        with warnings.catch_warnings():
            # Pillow's remarks on a file beside its pixels; one that it cannot read is an error.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file{nearby(path)}") from None
    except Exception as error:  # the readers raise whatever damaged bytes lead them to
        raise UserError(f"{path}: not a readable image ({reason(error)})") from None


def nearby(path: Path) -> str:
    """What a missing file may be called instead, as the end of a message; else nothing."""
    if "\\" in str(path) and os.path.exists(str(path).replace("\\", "/")):
        return "; the path holds backslashes, expected /. Fix: replace each \\ by /"
    with suppress(OSError):
        for name in sorted(os.listdir(path.parent)):
            if name.lower() == path.name.lower():
                return f"; found {name} there, upper and lower case differ. Fix: correct the name"
            if os.path.splitext(name)[0] == path.stem and os.path.splitext(name)[1] in SUFFIXES:
                return f"; found {name} there. Fix: correct the suffix"
    return ""


def size_mismatch(
    image: Path, mask: Path, image_size: tuple[int, int], mask_size: tuple[int, int]
) -> UserError:
    """The error for a mask that has not its image's size; both as a viewer shows them."""
    hint = "expected equal sizes"
    if lies_as_stored(image, image_size, mask_size):
        hint = (
            "the image's EXIF orientation turns it, and the mask lies as the image is stored; turn "
            "the mask alike, or remove the orientation"
        )
    elif mask_size == image_size[::-1]:
        hint = "turn one of them by 90 degrees"
    return UserError(
        f"{mask}: the mask is {mask_size[0]}x{mask_size[1]}, its image {image} is "
        f"{image_size[0]}x{image_size[1]}; {hint}"
    )


def lies_as_stored(image: Path, image_size: tuple[int, int], mask_size: tuple[int, int]) -> bool:
    """Whether a mask of another size has that of its image before EXIF turns it."""
    return image_size != mask_size == image_size[::-1] and orientation(image) in SIDEWAYS
