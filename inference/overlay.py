"""Pictures of masks: palettes, overlays, legends."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from util.colours import IGNORE_COLOUR, UNKNOWN_COLOUR, Colour, background_of, palette
from util.config.data import Data
from util.config.label_map import UNKNOWN
from util.config.types import IGNORE
from util.io import make_folder, write_atomically

GAP = 4
"""Pixels between pictures that `side_by_side` arranges."""
LegendEntry = tuple[Colour | None, str]
"""Colour of a swatch (None for no swatch), and its text."""


def indexed(values: np.ndarray, colours: dict[int, Colour]) -> Image.Image:
    """Return values `[H, W]` up to 255 as a palette image, which keeps the values when saved."""
    image = Image.fromarray(values.astype(np.uint8))
    image.putpalette([shade for value in range(256) for shade in colours.get(value, (0, 0, 0))])
    return image


def colour_mask(mask: np.ndarray, data: Data) -> Image.Image:
    """Return class indices `[H, W]` as a palette image."""
    return indexed(mask, mask_colours(data))


def mask_colours(data: Data) -> dict[int, Colour]:
    """Return the colour of each class, of pixels without class, and of ignored pixels."""
    special = {UNKNOWN: UNKNOWN_COLOUR, IGNORE: IGNORE_COLOUR}
    return dict(enumerate(palette(data))) | special


def overlay(image: Image.Image, mask: np.ndarray, data: Data, opacity: float = 0.5) -> Image.Image:
    """Return an image with the class colours of a mask `[H, W]` on top, opaque along class borders;
    the background stays uncoloured."""
    coloured = colour_mask(mask, data).convert("RGB")
    covered = np.where(_borders(mask), 255, round(255 * opacity)).astype(np.uint8)
    if (rest := background_of(data)) is not None:
        covered[mask == rest] = 0
    return Image.composite(coloured, image.convert("RGB"), Image.fromarray(covered))


def _borders(mask: np.ndarray) -> np.ndarray:
    """Return a bool mask `[H, W]`, True near a pixel of another class."""
    borders = np.zeros(mask.shape, bool)
    width = max(1, min(mask.shape) // 240)
    for lines, near in ((mask, borders), (mask.T, borders.T)):
        differs = lines[width:] != lines[:-width]
        near[width:] |= differs
        near[:-width] |= differs
    return borders


def class_shares(mask: np.ndarray, data: Data) -> list[tuple[Colour, str, float]]:
    """Return colour, name and share in (0, 1] of each class in a mask, the largest first."""
    names = dict(enumerate(data.classes)) | {UNKNOWN: "no class", IGNORE: "ignored"}
    colours = mask_colours(data)
    pixels = np.bincount(mask.ravel(), minlength=256)
    return [
        (colours[index], names[index], pixels[index] / mask.size)
        for index in np.argsort(-pixels, kind="stable").tolist()
        if pixels[index]
    ]


def mask_legend(mask: np.ndarray, data: Data) -> list[LegendEntry]:
    """Return the classes in a mask with their shares, for `with_legend`."""
    return [
        (colour, f"{name} {percent(share)}") for colour, name, share in class_shares(mask, data)
    ]


def percent(share: float) -> str:
    """Format a share above 0; shares that round to 0 become "< 0.1%"."""
    return f"{share:.1%}" if share >= 0.0005 else "< 0.1%"


def with_legend(picture: Image.Image, entries: Sequence[LegendEntry]) -> Image.Image:
    """Add lines of swatches and names below a picture."""
    size = min(max(12, picture.width // 75), 48)  # height of the text in pixels; distances follow
    font, gap = ImageFont.load_default(size), size // 2
    widths = [size + 3 * gap + round(font.getlength(text)) for _, text in entries]
    width = max(picture.width, gap + max(widths, default=0))
    corners, x, y = [], gap, picture.height + gap
    for entry_width in widths:
        if x > gap and x + entry_width > width:
            x, y = gap, y + size + gap
        corners.append((x, y))
        x += entry_width
    sheet = Image.new("RGB", (width, y + size + gap), "white")
    sheet.paste(picture, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for (x, y), (colour, text) in zip(corners, entries, strict=True):
        if colour is not None:
            draw.rectangle((x, y, x + size, y + size), fill=colour, outline=(128, 128, 128))
        draw.text((x + (size + gap if colour else 0), y - size // 8), text, "black", font)
    return sheet


def side_by_side(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Arrange rows of pictures on white; each column is as wide as its widest picture."""
    widths = [max(row[i].width for row in rows) for i in range(len(rows[0]))]
    heights = [max(image.height for image in row) for row in rows]
    size = (sum(widths) + GAP * (len(widths) + 1), sum(heights) + GAP * (len(heights) + 1))
    sheet = Image.new("RGB", size, "white")
    y = GAP
    for row, height in zip(rows, heights, strict=True):
        x = GAP
        for image, width in zip(row, widths, strict=True):
            sheet.paste(image.convert("RGB"), (x, y))
            x += width + GAP
        y += height + GAP
    return sheet


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a PNG or JPEG as a whole, with its folders.

    Raises `UserError` when it cannot be written.
    """
    form = Image.registered_extensions()[path.suffix.lower()]
    make_folder(path.parent)
    write_atomically(path, lambda file: picture.save(file, form, quality=90))  # unknown to PNG
