"""What the values or colours of mask files mean: one look-up per pixel, whatever the map."""

from pathlib import Path

import numpy as np
from PIL import Image

from util.config.label_map import MAX_VALUE, OTHER, UNKNOWN
from util.config.schema import IGNORE, Data
from util.errors import UserError


class Labels:
    """Turns mask files into class indices, as the config's mask keys say.

    A mask is read as codes: its values, or its colours as r + 256 g + 65536 b where the config's
    label_map names colours.  `classes[code]` is the class.
    """

    def __init__(self, data: Data):
        self.data = data
        self.in_colour = any("," in key for key in data.label_map or {})
        codes = 2**24 if self.in_colour else MAX_VALUE + 1
        found = data.label_map
        self.classes = _index_table(data) if found is None else _mapped_table(found, codes)

    def codes(self, mask: Image.Image, path: Path) -> np.ndarray:
        """The values or colours of a mask `[H, W]`; raises `UserError` for a wrong mode."""
        if self.in_colour:
            return colour_codes(mask, path)
        return value_codes(mask, path)

    def look_up(self, codes: np.ndarray, path: Path) -> np.ndarray:
        """Class indices, uint8, 255 = ignore; raises `UserError` for a code that is no class."""
        found = self.classes.take(codes)
        unknown = found == UNKNOWN
        if unknown.any():
            raise self._unknown(codes[unknown], path)
        return found

    def name(self, code: int) -> str:
        """A code as label_map has it."""
        return key_of(code, self.in_colour)

    def _unknown(self, codes: np.ndarray, path: Path) -> UserError:
        """The error that names the most frequent of these codes."""
        found, counts = np.unique(codes, return_counts=True)
        what = "colour" if self.in_colour else "mask value"
        first = f"{what} {self.name(int(found[np.argmax(counts)]))} ({np.max(counts)} pixels)"
        more = f" and {len(found) - 1} more are" if len(found) > 1 else " is"
        if self.data.label_map is not None:
            return UserError(
                f"{path}: {first}{more} not in data.label_map; add it there, or "
                f"'{OTHER}: ignore' for all that the map lacks"
            )
        count, zero = len(self.data.classes), self.data.reduce_zero_label
        return UserError(
            f"{path}: {first}{more} no class; expected 0 to {count - 1 + zero} or {IGNORE} "
            f"(data.classes names {count}{', reduce_zero_label is on' if zero else ''}), or what "
            "data.label_map says"
        )


def value_codes(mask: Image.Image, path: Path) -> np.ndarray:
    """The values `[H, W]` of a mask of one channel; of a palette image, the indices."""
    if mask.mode not in ("1", "L", "P") and not mask.mode.startswith("I"):
        raise UserError(
            f"{path}: the mask is in mode {mask.mode}, expected one channel of class indices (PNG "
            "in mode L or P); for colours, data.label_map says which is which class"
        )
    values = np.asarray(mask)
    if mask.mode == "1":
        return values.astype(np.uint8)
    if values.itemsize > 1 and not (values.min() >= 0 and values.max() <= MAX_VALUE):
        raise UserError(
            f"{path}: mask values {values.min()} to {values.max()}, expected 0 to {MAX_VALUE}"
        )
    return values


def colour_codes(mask: Image.Image, path: Path) -> np.ndarray:
    """The colours `[H, W]` of a mask, of a palette image those of its palette."""
    if mask.mode.startswith("I") or mask.mode == "F":
        raise UserError(
            f"{path}: the mask is in mode {mask.mode} and has no colours; data.label_map names "
            "colours, expected values"
        )
    if mask.mode == "P":
        return palette_codes(mask).take(np.asarray(mask))
    return _packed(np.asarray(mask.convert("RGB")))


def palette_codes(mask: Image.Image) -> np.ndarray:
    """`[256]`: the colour of each index of a palette image."""
    codes = np.zeros(256, np.uint32)
    entries = np.array(mask.getpalette("RGB"), np.uint8).reshape(-1, 3)
    codes[: len(entries)] = _packed(entries)
    return codes


def _packed(colours: np.ndarray) -> np.ndarray:
    """`[..., 3]`, uint8 -> codes `[...]`, uint32."""
    codes = colours[..., 0].astype(np.uint32)
    for channel in (1, 2):
        codes |= colours[..., channel].astype(np.uint32) << np.uint32(8 * channel)
    return codes


def colour_of(code: int) -> tuple[int, int, int]:
    return code & 255, code >> 8 & 255, code >> 16 & 255


def key_of(code: int, in_colour: bool) -> str:
    """A value or colour as label_map has it: "7" or "128,0,0"."""
    return ",".join(map(str, colour_of(code))) if in_colour else str(code)


def code_of(key: str) -> int:
    """The code of a value or colour as label_map has it."""
    parts = [int(part) for part in key.split(",")]
    return sum(part << 8 * place for place, part in enumerate(parts))


def _index_table(data: Data) -> np.ndarray:
    """`[65536]`, uint8: the class of each mask value, where values are class indices."""
    count, zero = len(data.classes), int(data.reduce_zero_label)
    table = np.full(MAX_VALUE + 1, UNKNOWN, np.uint8)
    table[zero : count + zero] = np.arange(count)
    table[IGNORE] = IGNORE
    table[:zero] = IGNORE
    return table


def _mapped_table(label_map: dict[str, int], codes: int) -> np.ndarray:
    """`[codes]`, uint8: the class of each value or colour."""
    table = np.full(codes, label_map.get(OTHER, UNKNOWN), np.uint8)
    for key, label in label_map.items():
        if key != OTHER:
            table[code_of(key)] = label
    return table
