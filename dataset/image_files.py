"""Image files: names, formats and headers."""

import functools
import logging
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from dataset.tiff import SIDEWAYS_ORIENTATIONS, TIFF_SUFFIXES, tiff_header
from util.errors import UserError, reason
from util.numbers import evenly_spaced

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
PILLOW_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")
"""Formats that Pillow may open; some others run programs."""

# Pillow also logs what it raises, such as "More samples per pixel than can be decoded: 8".
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)

MAX_MEGAPIXELS = 179
"""Pillow's own limit; `data.max_megapixels` is another."""
DECODED_MEGAPIXELS = 200
"""Pixels that all threads of `decoding_threads` decode at once, about."""
PROBED_HEADERS = 64
"""Headers from which the memory of many images is estimated."""


def open_image(file: Path | IO[bytes]) -> ImageFile.ImageFile:
    """Open a file in one of `PILLOW_FORMATS`, with any suffix; raises as Pillow does."""
    Image.MAX_IMAGE_PIXELS = None  # a global of Pillow's; `dataset.tiff.refuse_large` limits sizes
    return Image.open(file, formats=PILLOW_FORMATS)


def is_deep(image: Image.Image) -> bool:
    """Return True if an image has one channel of more than 8 bits, which Pillow clips at 255."""
    return image.mode.startswith("I") or image.mode == "F"


def image_size(path: Path) -> tuple[int, int]:
    """Return (width, height) after EXIF orientation, from the header; raises as `read_content`."""
    return _header(path)[0]


def exif_orientation(path: Path) -> int:
    """Return the EXIF orientation of a file: 1 (as stored) to 8; 5 to 8 swap width and height."""
    return _header(path)[1]


def _header(path: Path) -> tuple[tuple[int, int], int]:
    """Return size as shown and EXIF orientation; raises `UserError` as `read_content` does."""
    with reporting_unreadable(path):
        try:
            with open_image(path) as image:
                orientation = orientation_of(image)
                w, h = image.size
                # The reader of TIFFs applies the orientation.
                is_turned = orientation in SIDEWAYS_ORIENTATIONS and image.format != "TIFF"
                return (h, w) if is_turned else (w, h), orientation
        except UnidentifiedImageError:
            if path.suffix.lower() not in TIFF_SUFFIXES:
                raise
            return tiff_header(path)


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of an opened file; 1 where its EXIF is damaged."""
    try:
        # The method of the base class: PNG's would decode all pixels to find EXIF after them.
        return Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged bytes may raise any exception
        return 1


def decode_upright(image: ImageFile.ImageFile) -> Image.Image:
    """Decode an opened file and apply its EXIF orientation; raises as Pillow does."""
    if image.format == "TIFF":
        image.filename = ""  # else Pillow maps grey TIFFs into memory and ignores EXIF
    image.load()
    with suppress(Exception):  # damaged EXIF may raise any exception
        ImageOps.exif_transpose(image, in_place=True)
    return image


def decoding_threads(files: Sequence[Path]) -> int:
    """Return a number of threads to decode such files, few for large ones: a thread may need 2 GB
    for 100 megapixels. Reads some headers; unreadable files are left out."""
    largest = 1
    for path in evenly_spaced(files, PROBED_HEADERS):
        with suppress(UserError):
            width, height = image_size(path)
            largest = max(largest, width * height)
    return max(1, min(32, (os.cpu_count() or 1) + 4, DECODED_MEGAPIXELS * 10**6 // largest))


@contextmanager
def reporting_unreadable(path: Path) -> Iterator[None]:
    """Turn the errors of a reader into a `UserError` for a missing or damaged file.

    Refuses other things than files, such as a named pipe: opening it could wait forever.
    """
    try:
        mode = os.stat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise UserError(f"{path}: not a regular file; expected an image")
        with warnings.catch_warnings():
            # Warnings about metadata; a file that Pillow cannot read raises an exception.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file{missing_file_hint(path)}") from None
    except UnidentifiedImageError:
        raise UserError(f"{path}: not a readable image (no known image format)") from None
    except Exception as error:  # damaged bytes may raise any exception
        raise UserError(f"{path}: not a readable image ({reason(error)})") from None


def missing_file_hint(path: Path) -> str:
    """Return the end of a message that suggests a file in place of a missing one, or ""."""
    if "\\" in str(path) and os.path.exists(str(path).replace("\\", "/")):
        return "; the path holds backslashes, expected /. Fix: replace each \\ by /"
    with suppress(OSError):
        by_lower_case, by_stem = _names_in(path.parent, os.stat(path.parent).st_mtime_ns)
        if os.path.lexists(path):
            return "; found a link to a missing file, or a folder, of this name"
        if name := by_lower_case.get(path.name.lower()):
            return f"; found {name} there, upper and lower case differ. Fix: correct the name"
        if name := by_stem.get(path.stem):
            return f"; found {name} there. Fix: correct the suffix"
    return ""


@functools.lru_cache(maxsize=8)  # thousands of missing files of one large folder
def _names_in(folder: Path, changed: int) -> tuple[dict[str, str], dict[str, str]]:
    """Return the names in a folder by their lower-case form, and those of images by their stem.

    `changed`: its modification time, so that a changed folder is listed again.
    """
    names = sorted(os.listdir(folder), reverse=True)  # of equal keys, the first name counts
    images = [name for name in names if os.path.splitext(name)[1] in IMAGE_SUFFIXES]
    return {name.lower(): name for name in names}, {os.path.splitext(n)[0]: n for n in images}


def size_mismatch_error(
    image: Path, mask: Path, image_size: tuple[int, int], mask_size: tuple[int, int]
) -> UserError:
    """Return the error for a mask whose size differs from its image's, after EXIF orientation."""
    hint = "; expected equal sizes"
    if is_in_stored_orientation(image, image_size, mask_size):
        hint = (
            "; the image has an EXIF orientation, and the mask fits the image as stored. Fix: "
            "rotate the mask in the same way, or remove the orientation"
        )
    elif mask_size == image_size[::-1]:
        hint = ". Fix: turn one of them by 90 degrees"
    return UserError(
        f"{mask}: the mask is {mask_size[0]}x{mask_size[1]}, its image {image} is "
        f"{image_size[0]}x{image_size[1]}{hint}"
    )


def is_in_stored_orientation(
    image: Path, image_size: tuple[int, int], mask_size: tuple[int, int]
) -> bool:
    """Return True if a mask has the size of its image before its EXIF orientation is applied."""
    return (
        image_size != mask_size == image_size[::-1]
        and exif_orientation(image) in SIDEWAYS_ORIENTATIONS
    )
