"""Class indices back into what the dataset's own masks hold."""

import numpy as np
from PIL import Image

from dataset.labels import code_of, colour_of
from util.config import Data
from util.errors import UserError
from util.label_map import OTHER
from util.palette import palette
from util.picture import indexed


class Original:
    """Writes classes as the values or colours that the config reads as them.

    Of several values that mean one class it is the first in data.label_map.  Raises `UserError`
    for a class that no value means.
    """

    def __init__(self, data: Data):
        self.data = data
        codes = {index: index + int(data.reduce_zero_label) for index in range(len(data.classes))}
        if data.label_map is not None:
            keys = [(key, index) for key, index in data.label_map.items() if key != OTHER]
            self.in_colour = any("," in key for key, _ in keys)
            codes = {index: code_of(key) for key, index in reversed(keys)}
        else:
            self.in_colour = False
        if missing := [name for i, name in enumerate(data.classes) if i not in codes]:
            raise UserError(
                f"--values: data.label_map names no value of class '{missing[0]}'; add one, or "
                "take class indices, without --values"
            )
        self.codes = np.array([codes[index] for index in range(len(data.classes))], np.uint32)

    def mask(self, classes: np.ndarray) -> Image.Image:
        """A mask of class indices `[H, W]`: in RGB, with a palette, or in 16 bits."""
        codes = self.codes[classes]
        if self.in_colour:
            return Image.fromarray(np.stack(colour_of(codes), axis=-1).astype(np.uint8))
        if self.codes.max() > 255:
            return Image.fromarray(codes.astype(np.uint16))
        colours = dict(zip(self.codes.tolist(), palette(self.data), strict=True))
        return indexed(codes, colours)
