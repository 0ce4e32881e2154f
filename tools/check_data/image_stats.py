"""What an image file is: its mode and depth, how it lies, how bright it is."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dataset.file_content import pillow_image
from dataset.image_files import orientation
from dataset.tiff import tiff_kind


class ImageFacts(NamedTuple):
    """Of one image."""

    mode: str
    """Pillow's name of what the file holds, such as RGB, L (grey) or P (palette); 6 bands
    where Pillow cannot read it."""
    bits: int
    """Of each channel, in the file."""
    exif: int
    """EXIF orientation: 1 is upright, 2 to 8 are turned or mirrored."""
    shape: str
    """landscape, portrait or square."""
    brightness: float
    """Mean grey value, in [0, 255]."""
    contrast: float
    """Standard deviation of the grey values."""


def image_facts(path: Path, image: Image.Image) -> ImageFacts:
    """Facts of a file that can be read, and of the RGB image in it."""
    mode, bits = _stored(path)
    width, height = image.size
    shape = "square" if width == height else "landscape" if width > height else "portrait"
    share = np.array(image.convert("L").histogram()) / (width * height)
    values = np.arange(256)
    mean = float(share @ values)
    return ImageFacts(
        mode, bits, orientation(path), shape, mean, float(share @ (values - mean) ** 2) ** 0.5
    )


def _stored(path: Path) -> tuple[str, int]:
    """Mode and bits of each channel, in the file."""
    image = pillow_image(path)
    if image is None:  # a TIFF of many bands, or of deep colour
        return tiff_kind(path)
    with image:
        return image.mode, _bits(image)


def _bits(file: Image.Image) -> int:
    """Bits a channel as the file stores them: Pillow reads 16 bits of a colour as 8."""
    stored = [str(tile[3]) for tile in getattr(file, "tile", [])]
    if found := re.search(r"\b[A-Z]+;(\d+)", " ".join([file.mode, *stored])):
        return int(found[1])
    return {"1": 1, "I": 32, "F": 32}.get(file.mode, 8)
