"""Images and masks, from files to arrays."""

from pathlib import Path

import numpy as np
from PIL import Image

from util.config import IGNORE
from util.errors import UserError

INDEX_MODES = ("P", "L", "1", "I", "I;16")


def open_image(path: Path) -> Image.Image:
    """An RGB image; grey, palette, 16-bit and transparent ones are converted.

    Raises `UserError` when the file is missing or damaged.
    """
    image = _open(path)
    if image.mode.startswith("I"):  # 16 bits: Pillow would clip at 255 instead of scaling
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8))
    return image.convert("RGB")


def open_mask(path: Path, num_classes: int, reduce_zero_label: bool = False) -> Image.Image:
    """A mask of class indices in mode L, 255 = ignore.

    Raises `UserError` when the file is missing, damaged, in colour, or holds a value that is
    neither a class nor 255.
    """
    mask = _open(path)
    if mask.mode not in INDEX_MODES:
        raise UserError(
            f"{path}: the mask is in mode {mask.mode}, expected one channel of class indices "
            "(PNG in mode L or P)"
        )
    values = np.asarray(mask).astype(np.int64)
    if reduce_zero_label:
        values = np.where((values == 0) | (values == IGNORE), IGNORE, values - 1)
    found = np.unique(values)
    wrong = found[((found >= num_classes) & (found != IGNORE)) | (found < 0)]
    if wrong.size:
        raise UserError(
            f"{path}: mask value {wrong[0] + reduce_zero_label} is no class; expected "
            f"0 to {num_classes - 1 + reduce_zero_label} or {IGNORE} (data.classes names "
            f"{num_classes}{', reduce_zero_label is on' if reduce_zero_label else ''})"
        )
    return Image.fromarray(values.astype(np.uint8))


def image_size(path: Path) -> tuple[int, int]:
    """(width, height), from the header alone."""
    try:
        with Image.open(path) as image:
            return image.size
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _damaged(path, error) from None


def _open(path: Path) -> Image.Image:
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise _damaged(path, error) from None
    return image


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: not a readable image ({' '.join(str(error).split())})")
