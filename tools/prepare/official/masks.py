"""Masks of class indices, from and to the bytes of a PNG file."""

from io import BytesIO

import numpy as np
from PIL import Image

from dataset.image_files import MAX_MEGAPIXELS, open_image


def open_bytes(data: bytes) -> Image.Image:
    """Open an image. Raises `ValueError` for one of too many pixels, else as Pillow does."""
    image = open_image(BytesIO(data))
    if image.width * image.height > MAX_MEGAPIXELS * 10**6:
        raise ValueError(
            f"{image.width}x{image.height} pixels, expected at most {MAX_MEGAPIXELS} million"
        )
    return image


def read_indices(data: bytes) -> np.ndarray:
    """Return class indices `[H, W]`, uint8; raises `ValueError` for colours or 16 bits."""
    with open_bytes(data) as image:
        if image.mode not in ("L", "P"):
            raise ValueError(f"mode {image.mode}, expected one channel of 8 bits")
        return np.asarray(image)


def png(indices: np.ndarray) -> bytes:
    """Return a grey PNG file of indices `[H, W]`, uint8."""
    out = BytesIO()
    Image.fromarray(indices).save(out, "PNG")
    return out.getvalue()
