"""What the values or colours of mask files mean: one look-up per pixel, whatever the map."""

from pathlib import Path

import numpy as np
from PIL import Image

from dataset.file_content import Content, read_content
from util.config.label_map import MAX_VALUE, OTHER, UNKNOWN
from util.config.schema import IGNORE, Data
from util.errors import UserError

GREY = 0x010101
"""The code of a grey colour per grey value."""


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

    def codes(self, mask: Content, path: Path) -> np.ndarray:
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


def open_mask(path: Path, labels: Labels) -> Image.Image:
    """A mask of class indices in mode L, 255 = ignore.

    Raises `UserError` as `read_mask` does, for a wrong mode, and for what is no class.
    """
    mask = read_mask(path, labels.data.max_megapixels)
    return Image.fromarray(labels.look_up(labels.codes(mask, path), path))


def read_mask(path: Path, max_megapixels: int) -> Content:
    """Read a mask file; raises `UserError` as `read_content` does, and for lossy compression."""
    mask = read_content(path, max_megapixels)
    if mask.is_lossy:
        raise UserError(
            f"{path}: lossy compression (JPEG, WebP) does not keep the values of a mask; save "
            "masks as PNG from their source, as noise in the values cannot be undone"
        )
    return mask


def value_codes(mask: Content, path: Path) -> np.ndarray:
    """The values `[H, W]` of a mask of one channel as they are stored; of a palette image, the
    indices."""
    if not has_values(mask):
        raise UserError(
            f"{path}: the mask is in mode {mask.mode}, expected one channel of class indices (PNG "
            "in mode L or P); for colours, data.label_map says which is which class"
        )
    values = np.asarray(mask.pixels)
    if values.ndim == 3:  # grey with alpha
        values = values[..., 0]
    if mask.bits in (2, 4):  # which Pillow stretches to 255
        return values // (255 // (2**mask.bits - 1))
    return values.astype(np.uint8) if values.dtype == bool else _whole(values, path)


def has_values(mask: Content) -> bool:
    """Whether a mask has one channel beside alpha, not colours."""
    if isinstance(mask.pixels, np.ndarray):
        return mask.pixels.ndim == 2
    return mask.mode in ("1", "L", "LA", "P", "F") or mask.mode.startswith("I")


def is_deep(mask: Content) -> bool:
    """Whether a mask of one channel has more than 8 bits."""
    return has_values(mask) and mask.mode not in ("1", "L", "LA", "P")


def _whole(values: np.ndarray, path: Path) -> np.ndarray:
    """Values of any type as uint8 or uint16; raises `UserError` for what is no mask value."""
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "buif":
        raise UserError(f"{path}: mask values of type {values.dtype}, expected whole numbers")
    if values.dtype.kind == "f" and (odd := values != np.floor(values)).any():  # NaN too
        raise UserError(
            f"{path}: mask values such as {values[odd][0]:g} ({np.count_nonzero(odd)} pixels), "
            "expected whole numbers; save class indices as a PNG of 8 bits"
        )
    if not (values.min() >= 0 and values.max() <= MAX_VALUE):
        raise UserError(
            f"{path}: mask values {values.min():g} to {values.max():g}, expected 0 to {MAX_VALUE}"
        )
    return values.astype(np.uint16)


def colour_codes(mask: Content, path: Path) -> np.ndarray:
    """The colours `[H, W]` of a mask, of a palette image those of its palette."""
    if isinstance(mask.pixels, np.ndarray) or is_deep(mask):
        colours = _eight_bits(_whole(np.asarray(mask.pixels), path), path)
        if colours.ndim == 2:
            return colours.astype(np.uint32) * GREY
        if colours.shape[2] != 3:
            raise UserError(
                f"{path}: the mask has {colours.shape[2]} bands, expected class indices in one, "
                "or red, green and blue; save class indices as a PNG of 8 bits"
            )
        return _packed(colours)
    if mask.pixels.mode == "P":
        return palette_codes(mask.pixels).take(np.asarray(mask.pixels))
    return _packed(np.asarray(mask.pixels.convert("RGB")))


def _eight_bits(values: np.ndarray, path: Path) -> np.ndarray:
    """Values as uint8: as they are, or 16 bits of the whole range by 257, which loses nothing."""
    if values.max() > 255 and not (values % 257).any():
        values = values // 257
    if values.max() > 255:
        raise UserError(
            f"{path}: the mask has no colours of 8 bits (values up to {values.max()}); "
            "data.label_map names colours, expected values"
        )
    return values.astype(np.uint8)


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
