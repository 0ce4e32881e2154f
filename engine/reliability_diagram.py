"""The reliability diagram of pseudo-labels (Guo et al., ICML 2017, figure 1) as a picture."""

from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from engine.drawing import LETTERS, OUTLINE
from inference.overlay import with_legend
from util.colours import Colour

SIDE = 240
"""Pixels of 100 %, on both axes."""
BAR: Colour = (0, 114, 178)
DIAGONAL: Colour = (85, 85, 85)
MARGIN = 36
GAP = LETTERS + 8


def reliability(trust: dict[str, Any], epoch: int) -> Image.Image:
    """How many pixels of each confidence are right, against the diagonal, where as many are as the
    network says; below, how many pixels there are of it.

    Args:
        trust: as `metrics.calibration.PseudoLabelScores.summary` returns it.
    """
    sheet = Image.new("RGB", (MARGIN + SIDE + MARGIN, 3 * GAP + SIDE + SIDE // 4 + GAP), "white")
    upper, lower = GAP, 2 * GAP + SIDE
    line = MARGIN + round(SIDE * trust["threshold"])
    _bars(sheet, upper, SIDE, trust["bin_accuracy"], "right (%)")
    _bars(sheet, lower, SIDE // 4, trust["bin_pixels"], "pixels (%)")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(LETTERS)
    for start in range(0, SIDE, 8):
        ends = [(MARGIN + x, upper + SIDE - x) for x in (start, start + 4)]
        draw.line(ends, DIAGONAL)
    for top, height in ((upper, SIDE), (lower, SIDE // 4)):
        draw.line((line, top, line, top + height), OUTLINE)
    below = lower + SIDE // 4 + 3
    for share in (0, 50, 100):
        draw.text((MARGIN + SIDE * share // 100, below), str(share), "black", font, anchor="ma")
    draw.text((MARGIN + SIDE // 2, below + GAP - 4), "confidence (%)", "black", font, anchor="ma")
    ece = "none" if trust["ece"] is None else f"{trust['ece']:.1f} %"
    said = [
        (None, f"pseudo-labels, epoch {epoch}: calibration error {ece}"),
        (DIAGONAL, "as the network believes"),
        (OUTLINE, f"threshold {trust['threshold']:.3f}"),
    ]
    return with_legend(sheet, said)


def _bars(
    sheet: Image.Image, top: int, height: int, shares: Sequence[float | None], caption: str
) -> None:
    """Shares of the bins in percent as bars in a frame; none where there is no share."""
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(LETTERS)
    width, floor = SIDE / len(shares), top + height
    for place, share in enumerate(shares):
        if share:
            left, high = MARGIN + width * place, floor - height * share / 100
            draw.rectangle((round(left) + 1, round(high), round(left + width) - 1, floor), BAR)
    draw.rectangle((MARGIN, top, MARGIN + SIDE, floor), outline="black")
    draw.text((MARGIN, top - 3), caption, "black", font, anchor="ls")
    for share in (0, 100):
        beside = (MARGIN - 4, floor - height * share // 100)
        draw.text(beside, str(share), "black", font, anchor="rm")
