"""Masks as pictures."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from util.config import IGNORE, Data

IGNORE_COLOUR = (224, 224, 192)


def default_palette(count: int) -> list[tuple[int, int, int]]:
    """The colours of VOC's colour map: bits of the class, spread over the channels."""
    colours = []
    for label in range(count):
        channels = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                channels[channel] |= ((label >> (3 * bit + channel)) & 1) << (7 - bit)
        colours.append((channels[0], channels[1], channels[2]))
    return colours


def palette(data: Data) -> list[tuple[int, int, int]]:
    return data.palette or default_palette(len(data.classes))


def colour_mask(mask: np.ndarray, colours: Sequence[tuple[int, int, int]]) -> Image.Image:
    """Class indices `[H, W]` as a palette image; saved as PNG it still holds the indices."""
    image = Image.fromarray(mask.astype(np.uint8))
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(colours)] = colours
    table[IGNORE] = IGNORE_COLOUR
    image.putpalette(table.tobytes())
    return image


def overlay(image: Image.Image, mask: Image.Image, opacity: float = 0.5) -> Image.Image:
    """A coloured mask over its image."""
    return Image.blend(image.convert("RGB"), mask.convert("RGB"), opacity)


def side_by_side(rows: Sequence[Sequence[Image.Image]], gap: int = 4) -> Image.Image:
    """Rows of pictures on a white sheet; each column is as wide as its widest picture."""
    widths = [max(row[i].width for row in rows) for i in range(len(rows[0]))]
    heights = [max(image.height for image in row) for row in rows]
    size = (sum(widths) + gap * (len(widths) + 1), sum(heights) + gap * (len(heights) + 1))
    sheet = Image.new("RGB", size, "white")
    y = gap
    for row, height in zip(rows, heights, strict=True):
        x = gap
        for image, width in zip(row, widths, strict=True):
            sheet.paste(image.convert("RGB"), (x, y))
            x += width + gap
        y += height + gap
    return sheet
