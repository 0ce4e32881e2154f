"""Encode class indices as the values or colours of the dataset's own masks."""

from itertools import chain

import numpy as np
from PIL import Image

from dataset.mask_files import code_of, colour_of
from inference.overlay import indexed
from util.colours import IGNORE_COLOUR, palette
from util.config.data import Data
from util.config.label_map import MAX_VALUE, OTHER, WORDS
from util.config.types import IGNORE
from util.errors import UserError


class MaskEncoding:
    """Encoding of class indices by the values or colours in data.label_map; by the first of several
    values of one class.

    Raises `UserError` for a class without a value.

    Args:
        ignoring: masks also hold the ignore index 255.
        for_training: masks are read beside older ones, where the value of ignored pixels must not
            mean a class.
    """

    def __init__(self, data: Data, ignoring: bool = False, for_training: bool = False):
        keys = {key: index for key, index in (data.label_map or {}).items() if key not in WORDS}
        self.in_colour = any("," in key for key in keys)
        codes = {index: index + int(data.reduce_zero_label) for index in range(len(data.classes))}
        if data.label_map is not None:
            codes = {index: code_of(key) for key, index in reversed(keys.items())}
        if missing := [name for i, name in enumerate(data.classes) if i not in codes]:
            raise UserError(
                f"data.label_map: names no value of class '{missing[0]}', so no mask can store it. "
                "Fix: add one (predict.py: or omit --values)"
            )
        has_class = (data.label_map or {}).get(OTHER, IGNORE) != IGNORE  # any other value
        rare = for_training and has_class
        free = _free_code({code_of(key) for key in keys}, self.in_colour, rare)
        self.ignored = codes.get(IGNORE, free)
        """Value or colour of ignored pixels; a free one if the config has none."""
        codes[IGNORE] = self.ignored
        indices = [*range(len(data.classes)), *[IGNORE] * ignoring]
        self.colours = {codes[i]: colour for i, colour in enumerate(palette(data))}
        self.colours[self.ignored] = IGNORE_COLOUR
        self.is_deep = not self.in_colour and max(codes[index] for index in indices) > 255
        """True for masks of 16 bits."""
        self.codes = np.zeros(256, np.uint32)
        self.codes[indices] = [codes[index] for index in indices]

    def values(self, classes: np.ndarray) -> np.ndarray:
        """Encode class indices `[H, W]` as uint8 or uint16 `[H, W]`, or colours `[H, W, 3]`."""
        codes = self.codes[classes]
        if self.in_colour:
            return np.stack(colour_of(codes), axis=-1).astype(np.uint8)
        return codes.astype(np.uint16 if self.is_deep else np.uint8)

    def mask(self, classes: np.ndarray) -> Image.Image:
        """Return class indices `[H, W]` as an image: in RGB, with a palette, or in 16 bits."""
        values = self.values(classes)
        plain = self.in_colour or self.is_deep
        return Image.fromarray(values) if plain else indexed(values, self.colours)


def _free_code(taken: set[int], in_colour: bool, rare: bool) -> int:
    """Return a value or colour that is not taken: 255, VOC's colour of outlines, or another one;
    `rare`: one that existing masks hardly contain."""
    if in_colour:
        first, last = code_of("1,254,3" if rare else "224,224,192"), 2**24
    else:
        first, last = MAX_VALUE - 1 if rare else IGNORE, MAX_VALUE
    return next(code for code in chain([first], range(last)) if code not in taken)
