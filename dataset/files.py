"""Images and masks, from files to arrays."""

import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from dataset.labels import Labels
from dataset.samples import Sample
from util.config import Data
from util.errors import UserError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
Range = tuple[float, float]
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""

MAX_MEGAPIXELS = 179
"""Pillow's own limit; `data.max_megapixels` is another."""
Image.MAX_IMAGE_PIXELS = None

# What Pillow thinks of a file beside its pixels; one that it cannot read is an error below.
warnings.filterwarnings("ignore", module=r"PIL\.")


class Reader:
    """Opens the files of samples, as the config says."""

    def __init__(self, data: Data):
        self.image_range, self.labels = data.image_range, Labels(data)
        self.max_megapixels = data.max_megapixels

    def image(self, sample: Sample) -> Image.Image:
        """The RGB image of a sample; raises `UserError` as `open_image` does."""
        return open_image(sample.image_file, self.image_range, self.max_megapixels)

    def mask(self, sample: Sample) -> Image.Image:
        """Its class indices in mode L, 255 = ignore; raises `UserError` as `open_mask` does."""
        return open_mask(sample.mask_file, self.labels)

    def pair(self, sample: Sample) -> tuple[Image.Image, Image.Image]:
        """Image and classes; raises `UserError` when either is faulty or their sizes differ."""
        image, mask = self.image(sample), self.mask(sample)
        if image.size != mask.size:
            raise size_mismatch(sample.image_file, sample.mask_file, image.size, mask.size)
        return image, mask


def open_image(
    path: Path, image_range: Range | None = None, max_megapixels: int = MAX_MEGAPIXELS
) -> Image.Image:
    """An RGB image; grey, palette and transparent ones are converted.

    `image_range`: what is black and what is white, in images of more than 8 bits; `UserError`
    where it is missing, and when the file is missing or damaged.
    """
    image = load_image(path, max_megapixels)
    if image.mode == "RGB":
        return image
    if not is_deep(image):
        return image.convert("RGB")
    values = np.asarray(image).astype(np.float32)
    if image_range is None:
        raise UserError(
            f"{path}: the image is in mode {image.mode}, its values are {np.min(values):g} to "
            f"{np.max(values):g}; data.image_range must say which are black and white"
        )
    low, high = image_range
    grey = np.clip((values - low) * (255 / (high - low)), 0, 255)
    return Image.fromarray((grey + 0.5).astype(np.uint8)).convert("RGB")


def open_mask(path: Path, labels: Labels) -> Image.Image:
    """A mask of class indices in mode L, 255 = ignore.

    Raises `UserError` when the file is missing, damaged, in a wrong mode, or holds what is no
    class.
    """
    return Image.fromarray(labels.look_up(labels.codes(load_image(path), path), path))


def is_deep(image: Image.Image) -> bool:
    """Whether its one channel has more than 8 bits: Pillow would clip at 255 instead of scaling."""
    return image.mode.startswith("I") or image.mode == "F"


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) as a viewer shows it, from the header alone."""
    return _header(path)[0]


def orientation(path: Path) -> int:
    """The EXIF orientation of a file, 1 (as it is stored) to 8; 5 to 8 swap width and height."""
    return _header(path)[1]


def _header(path: Path) -> tuple[tuple[int, int], int]:
    """Size as shown and EXIF orientation; raises `UserError` as `load_image` does."""
    try:
        with Image.open(path) as image:
            turn, (w, h) = _turn(image), image.size
            if turn in SIDEWAYS and image.format != "TIFF":  # whose reader swaps them itself
                w, h = h, w
            return (w, h), turn
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # as below
        raise _damaged(path, error) from None


def _turn(image: Image.Image) -> int:
    """The EXIF orientation of an opened file; 1 where its EXIF is damaged."""
    try:
        # The base class's method: that of PNG would decode all pixels to look behind them.
        return Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # as below
        return 1


def load_image(path: Path, max_megapixels: int = MAX_MEGAPIXELS) -> Image.Image:
    """A file as a viewer shows it: with its EXIF orientation applied.

    Raises `UserError` when it is missing, damaged or too large.
    """
    try:
        image = Image.open(path)
        if image.width * image.height > max_megapixels * 10**6:
            raise UserError(
                f"{path}: {image.width}x{image.height} pixels, expected at most {max_megapixels} "
                "million; raise data.max_megapixels if you trust the file, or cut it into tiles"
            )
        image.load()
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # the readers raise whatever damaged bytes lead them to
        raise _damaged(path, error) from None
    with suppress(Exception):  # of damaged EXIF, the more so when it is written anew
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _damaged(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{path}: not a readable image ({reason})")


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
