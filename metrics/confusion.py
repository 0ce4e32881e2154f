"""What a confusion matrix says: scores of classes, a table, a picture."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

LETTERS = 13  # pixels
MANY = 25
"""With more classes than this, cells are too small for numbers."""
DARKEST = np.array([8, 48, 107])


def class_scores(confusion: Tensor) -> dict[str, Tensor]:
    """F1, precision and recall `[C]` in [0, 1] of a confusion matrix `[C, C]` (rows: truth).

    F1, 2 TP / (2 TP + FP + FN), is the Dice of all pixels of all images together; that of volumes
    is `inference.evaluation.dice`.  What has no pixels counts 0.
    """
    hit, found, true = confusion.diag(), confusion.sum(0), confusion.sum(1)
    return {
        "F1": 2 * hit / (found + true).clamp(min=1),
        "precision": hit / found.clamp(min=1),
        "recall": hit / true.clamp(min=1),
    }


def confusion_rows(confusion: Tensor, classes: Sequence[str]) -> list[list[object]]:
    """A confusion matrix in pixels, with names, as rows of a table."""
    rows = zip(classes, confusion.tolist(), strict=True)
    return [["truth \\ prediction", *classes], *([name, *pixels] for name, pixels in rows)]


def confusion_picture(confusion: Tensor, classes: Sequence[str]) -> Image.Image:
    """A confusion matrix as shares of the truth, in percent; shades by their square root."""
    share = (confusion / confusion.sum(1, keepdim=True).clamp(min=1)).numpy()
    font = ImageFont.load_default(LETTERS)
    cell = LETTERS + 3 if len(classes) > MANY else 3 * LETTERS
    margin = round(max(map(font.getlength, classes))) + 2 * LETTERS
    top = margin + 2 * LETTERS
    side = cell * len(classes)
    sheet = Image.new("RGB", (max(margin + side, 420) + LETTERS, top + side + LETTERS), "white")
    draw = ImageDraw.Draw(sheet)
    title = "rows: truth, columns: prediction, in percent of the truth"
    draw.text((LETTERS, LETTERS // 2), title, "black", font)
    for place, name in enumerate(classes):
        middle = round((place + 0.5) * cell)
        draw.text((margin - LETTERS // 2, top + middle), name, "black", font, anchor="rm")
        label = Image.new("RGB", (margin - LETTERS // 2, cell), "white")
        ImageDraw.Draw(label).text((0, cell / 2), name, "black", font, anchor="lm")
        sheet.paste(label.rotate(90, expand=True), (margin + place * cell, 2 * LETTERS))
    for (row, column), value in np.ndenumerate(share):
        x, y = margin + column * cell, top + row * cell
        fill = tuple((255 + (DARKEST - 255) * value**0.5).astype(int).tolist())
        draw.rectangle((x, y, x + cell, y + cell), fill, (220, 220, 220))
        if len(classes) <= MANY and value >= 0.005:
            ink = "white" if value > 0.3 else "black"
            draw.text((x + cell / 2, y + cell / 2), f"{100 * value:.0f}", ink, font, anchor="mm")
    return sheet
