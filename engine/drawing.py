"""A sheet of pictures of one image, with captions and a legend of classes."""

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from inference.overlay import colour_mask, contents, side_by_side, with_legend
from semi.panels import Marks
from util.colours import Colour
from util.config.data import Data
from util.plotting import viridis

SIDE = 256
"""Longer side of every picture in pixels."""
COLUMNS = 4
LETTERS = 13  # pixels
LEFT_OUT: Colour = (200, 200, 200)
"""Colour of labels that do not count."""
OUTLINE: Colour = (255, 45, 85)


class Sheet:
    """Pictures of one image in rows, above a legend of their classes."""

    def __init__(self, data: Data):
        self._data = data
        self._cells: list[Image.Image] = []
        self._legend: dict[str, Colour] = {}

    def photo(
        self,
        caption: str,
        image: Image.Image,
        box: np.ndarray | None = None,
        marks: np.ndarray | None = None,
    ) -> None:
        """Add an image with a rectangle (bool `[H, W]`) and points (see `points_of`)."""
        picture = _fitted(image.convert("RGB"), Image.Resampling.LANCZOS)
        bounds = None if box is None else Image.fromarray(box).getbbox()
        if bounds is not None:
            scale = picture.width / image.width
            x0, y0, x1, y1 = (round(scale * bound) for bound in bounds)
            ImageDraw.Draw(picture).rectangle((x0, y0, x1 - 1, y1 - 1), outline=OUTLINE, width=2)
        self._add(caption, _marked(picture, marks))

    def labels(self, caption: str, mask: np.ndarray, shown: np.ndarray | None = None) -> None:
        """Add a mask `[H, W]` of classes; grey where not `shown`."""
        coloured = colour_mask(mask, self._data).convert("RGB")
        kept = np.ones(mask.shape, bool) if shown is None else shown
        picture = Image.composite(
            coloured, Image.new("RGB", coloured.size, LEFT_OUT), Image.fromarray(kept)
        )
        self._legend |= {name: colour for colour, name, _ in contents(mask[kept], self._data)}
        if not kept.all():
            self._legend["left out"] = LEFT_OUT
        self._add(caption, _fitted(picture, Image.Resampling.NEAREST))

    def heat(self, caption: str, share: np.ndarray, marks: np.ndarray | None) -> None:
        """Add a heat map of values in [0, 1], float `[h, w]`, with its scale."""
        values = Image.fromarray(np.nan_to_num(share).astype(np.float32))
        smooth = np.asarray(_fitted(values, Image.Resampling.BILINEAR)).clip(0, 1)
        self._add(caption, _marked(Image.fromarray(viridis(smooth)), marks), has_scale=True)

    def _add(self, caption: str, picture: Image.Image, has_scale: bool = False) -> None:
        strip = LETTERS + 6
        cell = Image.new("RGB", (SIDE, picture.height + strip), "white")
        cell.paste(picture, (0, strip))
        draw, font = ImageDraw.Draw(cell), ImageFont.load_default(LETTERS)
        draw.text((1, 1), caption, "black", font)
        if has_scale:
            ramp = viridis(np.linspace(0, 1, 50))[None].repeat(LETTERS - 3, axis=0)
            cell.paste(Image.fromarray(ramp), (SIDE - 64, 4))
            draw.text((SIDE - 67, 1), "0", "black", font, anchor="ra")
            draw.text((SIDE - 1, 1), "1", "black", font, anchor="ra")
        self._cells.append(cell)

    def image(self, title: str) -> Image.Image:
        """Return the sheet; the title precedes the legend."""
        columns = min(COLUMNS, len(self._cells))
        missing = -len(self._cells) % columns
        cells = [*self._cells, *[Image.new("RGB", (1, 1), "white")] * missing]
        rows = [cells[first : first + columns] for first in range(0, len(cells), columns)]
        legend = [(colour, name) for name, colour in self._legend.items()]
        return with_legend(side_by_side(rows), [(None, title), *legend])


def points_of(marks: Marks, number: int) -> np.ndarray:
    """Return the pixels marked in image `number` as shares of width and height, float `[M, 2]`."""
    (h, w), pixels = marks.shape, marks.pixels[number].cpu()
    x, y = pixels % w / max(w - 1, 1), pixels // w / max(h - 1, 1)
    return torch.stack([x, y], dim=1).numpy()


def array(values: Tensor) -> np.ndarray:
    """Return a tensor of any device and precision as an array."""
    return (values.float() if values.is_floating_point() else values).cpu().numpy()


def _fitted(image: Image.Image, resampling: Image.Resampling) -> Image.Image:
    scale = SIDE / max(image.size)
    width, height = (max(1, round(scale * side)) for side in image.size)
    return image.resize((width, height), resampling)


def _marked(picture: Image.Image, points: np.ndarray | None) -> Image.Image:
    draw, radius = ImageDraw.Draw(picture), 3
    if points is None:
        return picture
    last = np.array(picture.size) - 1
    for x, y in (points * last).clip(radius, last - radius).tolist():  # whole at the border, too
        around = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(around, fill=OUTLINE, outline="white", width=1)
    return picture
