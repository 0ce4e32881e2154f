"""Masks as pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from util.colours import IGNORE_COLOUR, UNKNOWN_COLOUR, Colour, background_of, palette
from util.config.data import Data
from util.config.label_map import UNKNOWN
from util.config.types import IGNORE
from util.io import make_folder, write_atomically

LegendEntry = tuple[Colour | None, str]
"""The colour of a swatch, or none, and what stands beside it."""


def indexed(values: np.ndarray, colours: dict[int, Colour]) -> Image.Image:
    """Values `[H, W]` up to 255 as a palette image; saved as PNG it still holds the values."""
    image = Image.fromarray(values.astype(np.uint8))
    image.putpalette([shade for value in range(256) for shade in colours.get(value, (0, 0, 0))])
    return image


def colour_mask(mask: np.ndarray, data: Data) -> Image.Image:
    """Class indices `[H, W]` as a palette image."""
    return indexed(mask, mask_colours(data))


def mask_colours(data: Data) -> dict[int, Colour]:
    """The colour of each class, of what is none and of what is ignored."""
    special = {UNKNOWN: UNKNOWN_COLOUR, IGNORE: IGNORE_COLOUR}
    return dict(enumerate(palette(data))) | special


def overlay(image: Image.Image, mask: np.ndarray, data: Data, opacity: float = 0.5) -> Image.Image:
    """Class indices `[H, W]` in colour over their image, opaque along the borders of a class; the
    background is left as it is."""
    coloured = colour_mask(mask, data).convert("RGB")
    covered = np.where(_borders(mask), 255, round(255 * opacity)).astype(np.uint8)
    if (rest := background_of(data)) is not None:
        covered[mask == rest] = 0
    return Image.composite(coloured, image.convert("RGB"), Image.fromarray(covered))


def _borders(mask: np.ndarray) -> np.ndarray:
    """`[H, W]`: whether another class is near, along a row or a column."""
    found = np.zeros(mask.shape, bool)
    width = max(1, min(mask.shape) // 240)
    for lines, near in ((mask, found), (mask.T, found.T)):
        differs = lines[width:] != lines[:-width]
        near[width:] |= differs
        near[:-width] |= differs
    return found


def contents(mask: np.ndarray, data: Data) -> list[tuple[Colour, str, float]]:
    """Colour, name and share in (0, 1] of what a mask of class indices holds, the most first."""
    names = dict(enumerate(data.classes)) | {UNKNOWN: "no class", IGNORE: "ignored"}
    colours, pixels = mask_colours(data), np.bincount(mask.ravel(), minlength=256)
    return [
        (colours[index], names[index], pixels[index] / mask.size)
        for index in np.argsort(-pixels, kind="stable").tolist()
        if pixels[index]
    ]


def mask_legend(mask: np.ndarray, data: Data) -> list[LegendEntry]:
    """What a mask holds, with shares, for `with_legend`."""
    return [(colour, f"{name} {percent(share)}") for colour, name, share in contents(mask, data)]


def percent(share: float) -> str:
    """A share that is not none; what would be rounded to none as well."""
    return f"{share:.1%}" if share >= 0.0005 else "< 0.1%"


def with_legend(picture: Image.Image, entries: Sequence[LegendEntry]) -> Image.Image:
    """The picture above swatches and names, in as many lines as it takes."""
    size = min(max(12, picture.width // 75), 48)  # letters, and so all distances, in pixels
    font, gap = ImageFont.load_default(size), size // 2
    widths = [size + 3 * gap + round(font.getlength(text)) for _, text in entries]
    width = max(picture.width, gap + max(widths, default=0))
    places, x, y = [], gap, picture.height + gap
    for own in widths:
        if x > gap and x + own > width:
            x, y = gap, y + size + gap
        places.append((x, y))
        x += own
    sheet = Image.new("RGB", (width, y + size + gap), "white")
    sheet.paste(picture, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for (x, y), (colour, text) in zip(places, entries, strict=True):
        if colour is not None:
            draw.rectangle((x, y, x + size, y + size), fill=colour, outline=(128, 128, 128))
        draw.text((x + (size + gap if colour else 0), y - size // 8), text, "black", font)
    return sheet


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


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a PNG or JPEG, with its folders, whole or not at all; raises `UserError` when it cannot
    be written."""
    form = Image.registered_extensions()[path.suffix.lower()]
    make_folder(path.parent)
    write_atomically(path, lambda file: picture.save(file, form, quality=90))  # unknown to PNG
