"""Mask files: values or colours -> class indices, by one look-up per pixel."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dataset.file_content import Content, read_content
from util.config.data import Data
from util.config.label_map import MAX_VALUE, OTHER, TRANSPARENT, UNKNOWN, WORDS
from util.config.types import IGNORE
from util.errors import UserError, counted

GREY_STEP = 0x010101
"""Difference between the codes of two neighbouring grey values."""
CLEAR, NODATA = 2**24, 2**24 + 1
"""Codes of fully transparent pixels, and of pixels without data."""


class LabelLookup:
    """Table from the codes of a mask to class indices, by the config's mask keys.

    Codes are values, or colours as r + 256 g + 65536 b where label_map names colours; `CLEAR` and
    `NODATA` mark transparent pixels and pixels without data.
    """

    def __init__(self, data: Data):
        self.data = data
        label_map = data.label_map or {}
        self.in_colour = any("," in key for key in label_map)
        self.only_words = bool(label_map) and all(key in WORDS for key in label_map)
        """True for a label_map that names neither values nor colours."""
        self._count = 2**24 if self.in_colour or self.only_words else MAX_VALUE + 1
        self._named = [code_of(key) for key in label_map if key != OTHER]
        """Codes that mean a class, or ignore, even where a file says that it has no data."""
        self._classes = np.full(self._count + 2, label_map.get(OTHER, UNKNOWN), np.uint8)
        """Class index by code; the last two for `CLEAR` and `NODATA`."""
        if data.label_map is None:
            count, zero = len(data.classes), int(data.reduce_zero_label)
            self._named = [*range(count + zero)]
            self._classes[zero : count + zero] = np.arange(count)
            self._classes[IGNORE] = IGNORE
            self._classes[:zero] = IGNORE
        for key, label in label_map.items():
            if key != OTHER:
                self._classes[-2 if key == TRANSPARENT else code_of(key)] = label
        self._classes[-1] = IGNORE

    def codes(self, mask: Content, path: Path) -> np.ndarray:
        """Return the values or colours of a mask `[H, W]`; raises `UserError` for a wrong mode."""
        in_colour = self.in_colour or (self.only_words and not has_values(mask))
        return mask_codes(mask, path, in_colour, self._named)

    def class_of(self, codes: np.ndarray) -> np.ndarray:
        """Return class indices, uint8, 255 = ignore, `UNKNOWN` for a code without a class."""
        if not self.in_colour and codes.dtype.itemsize > 2:
            codes = np.where(codes >= CLEAR, codes - CLEAR + self._count, codes)
        return self._classes.take(codes)

    def look_up(self, codes: np.ndarray, path: Path) -> np.ndarray:
        """Return class indices, uint8, 255 = ignore; raises `UserError` for other codes."""
        found = self.class_of(codes)
        unknown = found == UNKNOWN
        if unknown.any():
            raise self._unknown(codes[unknown], path)
        return found

    def name(self, code: int) -> str:
        """Return a code as a key of label_map."""
        return key_of(code, self.in_colour)

    def _unknown(self, codes: np.ndarray, path: Path) -> UserError:
        """Return the error that names the most frequent of these codes."""
        if clear := int(np.count_nonzero(codes == CLEAR)):
            return UserError(
                f"{path}: found {counted(clear, 'transparent pixel')}. Fix: add "
                f"'{TRANSPARENT}: ignore', or a class, to data.label_map"
            )
        found, counts = np.unique(codes, return_counts=True)
        what = "colour" if self.in_colour else "mask value"
        name = self.name(int(found[np.argmax(counts)]))
        first = f"{what} {name} ({counted(int(np.max(counts)), 'pixel')})"
        more = f" and {len(found) - 1} more are" if len(found) > 1 else " is"
        if self.data.label_map is not None:
            return UserError(
                f"{path}: {first}{more} not in data.label_map. Fix: add it there, or "
                f"'{OTHER}: ignore' for all values not in the map"
            )
        count, zero = len(self.data.classes), self.data.reduce_zero_label
        return UserError(
            f"{path}: {first}{more} no class; expected 0 to {count - 1 + zero} or {IGNORE} "
            f"(data.classes names {count}{', reduce_zero_label is on' if zero else ''}), or a "
            "value in data.label_map"
        )


def open_mask(path: Path, labels: LabelLookup) -> Image.Image:
    """Read a mask as class indices in mode L, 255 = ignore.

    Raises `UserError` as `read_mask` does, for a wrong mode, and for a value without a class.
    """
    mask = read_mask(path, labels.data.max_megapixels)
    return Image.fromarray(labels.look_up(labels.codes(mask, path), path))


def read_mask(path: Path, max_megapixels: int) -> Content:
    """Read a mask file; raises `UserError` as `read_content` does, and for lossy compression."""
    mask = read_content(path, max_megapixels)
    if mask.is_lossy:
        raise UserError(
            f"{path}: lossy compression (JPEG, WebP) does not keep the values of a mask. Fix: save "
            "masks as PNG from their source, as noise in the values cannot be undone"
        )
    if mask.is_inverted:
        raise UserError(
            f"{path}: TIFF stores white as 0 (photometric MinIsWhite); mask values are ambiguous. "
            "Fix: save class indices as 8-bit PNG"
        )
    return mask


def mask_codes(
    mask: Content, path: Path, in_colour: bool, named: Sequence[int] | None = None
) -> np.ndarray:
    """Return the codes `[H, W]` of a mask; raises `UserError` for a wrong mode.

    `named`: codes with a meaning of their own (None: all), which the nodata value and the alpha of
    a TIFF do not change to `NODATA`.
    """
    if in_colour and mask.nodata_value_mask is not None and is_deep_mask(mask):
        # Not a colour, so no class.
        if np.asarray(mask.pixels)[mask.nodata_value_mask].max(initial=0) > 255:
            mask = mask._replace(nodata_value_mask=None)
    codes = colour_codes(mask, path) if in_colour else value_codes(mask, path)
    alpha = alpha_of(mask)
    if alpha is not None and (clear := alpha == 0).any():
        codes = np.where(clear, np.uint32(CLEAR), codes)
    if mask.nodata_mask is None:
        return codes
    kept = codes == CLEAR
    if mask.nodata_value_mask is not None:
        kept |= mask.nodata_value_mask
    if named is not None:
        kept &= np.isin(codes, named)
    return np.where(mask.nodata_mask & ~kept, np.uint32(NODATA), codes)


def alpha_of(mask: Content) -> np.ndarray | None:
    """Return the alpha `[H, W]` of a mask, 0 = transparent; None without alpha."""
    pixels = mask.pixels
    if isinstance(pixels, np.ndarray):
        return mask.alpha
    if "A" in pixels.getbands():
        return np.asarray(pixels.getchannel("A"))
    clear = pixels.info.get("transparency")
    if clear is None:
        return None
    if isinstance(clear, bytes):  # the alpha of each index of a palette
        return np.frombuffer(clear.ljust(256, b"\xff"), np.uint8).take(np.asarray(pixels))
    values = np.asarray(pixels)
    if values.dtype == bool:
        return values != bool(clear)
    if isinstance(clear, tuple):
        return ~(values[..., :3] == clear).all(axis=2)
    return values != clear * (255 // (2**mask.grey_bits - 1) if mask.grey_bits in (2, 4) else 1)


def value_codes(mask: Content, path: Path) -> np.ndarray:
    """Return the stored values `[H, W]` of a mask of one channel; indices of a palette image."""
    if not has_values(mask):
        raise UserError(
            f"{path}: the mask is in mode {mask.mode}, expected one channel of class indices (PNG "
            "in mode L or P). Fix: for colours, name their classes in data.label_map"
        )
    values = _pixels_with_data(mask)
    if values.ndim == 3:  # grey with alpha
        values = values[..., 0]
    if mask.grey_bits in (2, 4):  # Pillow stretches these to 255
        return values // (255 // (2**mask.grey_bits - 1))
    return values.astype(np.uint8) if values.dtype == bool else _whole(values, path)


def _pixels_with_data(mask: Content) -> np.ndarray:
    """Return the pixels of a mask, 0 where they cannot be a class."""
    values = np.asarray(mask.pixels)
    if mask.nodata_mask is None:
        return values
    nodata_mask = mask.nodata_mask
    if mask.nodata_value_mask is not None:
        nodata_mask = nodata_mask & ~mask.nodata_value_mask
    nodata_mask = nodata_mask if values.ndim == 2 else nodata_mask[..., None]
    return np.where(nodata_mask, values.dtype.type(0), values)


def has_values(mask: Content) -> bool:
    """Return True if a mask has one channel (and maybe alpha), not colours."""
    if isinstance(mask.pixels, np.ndarray):
        return mask.pixels.ndim == 2
    return mask.mode in ("1", "L", "LA", "P", "F") or mask.mode.startswith("I")


def is_deep_mask(mask: Content) -> bool:
    """Return True if a mask of one channel has more than 8 bits."""
    return has_values(mask) and mask.mode not in ("1", "L", "LA", "P")


def _whole(values: np.ndarray, path: Path) -> np.ndarray:
    """Convert values to uint8 or uint16; raises `UserError` for fractions and other ranges."""
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "buif":
        raise UserError(f"{path}: mask values of type {values.dtype}, expected whole numbers")
    if values.dtype.kind == "f" and (odd := values != np.floor(values)).any():  # NaN too
        pixels = counted(int(np.count_nonzero(odd)), "pixel")
        raise UserError(
            f"{path}: mask values such as {values[odd][0]:g} ({pixels}), expected whole numbers. "
            "Fix: save class indices as 8-bit PNG"
        )
    if not (values.min() >= 0 and float(values.max()) <= MAX_VALUE):  # float16 has no 65535
        raise UserError(
            f"{path}: mask values {values.min():g} to {values.max():g}, expected 0 to {MAX_VALUE}"
        )
    return values.astype(np.uint16)


def colour_codes(mask: Content, path: Path) -> np.ndarray:
    """Return the colours `[H, W]` of a mask; a palette image has the colours of its palette."""
    if isinstance(mask.pixels, np.ndarray) or is_deep_mask(mask):
        colours = _eight_bits(_whole(_pixels_with_data(mask), path), path)
        if colours.ndim == 2:
            return colours.astype(np.uint32) * GREY_STEP
        if colours.shape[2] != 3:
            raise UserError(
                f"{path}: the mask has {colours.shape[2]} bands, expected class indices in one, "
                "or red, green and blue. Fix: save class indices as 8-bit PNG"
            )
        return packed(colours)
    if mask.pixels.mode == "P":
        return palette_codes(mask.pixels).take(np.asarray(mask.pixels))
    return packed(np.asarray(mask.pixels.convert("RGB")))


def _eight_bits(values: np.ndarray, path: Path) -> np.ndarray:
    """Convert values to uint8: unchanged, or multiples of 257 divided by 257."""
    if values.max() > 255 and not (values % 257).any():
        values = values // 257
    if values.max() > 255:
        raise UserError(
            f"{path}: the mask has no colours of 8 bits (values up to {values.max()}); "
            "data.label_map names colours, expected values"
        )
    return values.astype(np.uint8)


def palette_codes(mask: Image.Image) -> np.ndarray:
    """Return the colour of each index of a palette image, `[256]`."""
    codes = np.zeros(256, np.uint32)
    entries = np.array(mask.getpalette("RGB"), np.uint8).reshape(-1, 3)
    codes[: len(entries)] = packed(entries)
    return codes


def packed(colours: np.ndarray) -> np.ndarray:
    """Pack colours `[..., 3]`, uint8, into codes `[...]`, uint32."""
    codes = colours[..., 0].astype(np.uint32)
    for channel in (1, 2):
        codes |= colours[..., channel].astype(np.uint32) << np.uint32(8 * channel)
    return codes


def colour_of(code: int) -> tuple[int, int, int]:
    return code & 255, code >> 8 & 255, code >> 16 & 255


def key_of(code: int, in_colour: bool) -> str:
    """Return a code as a key of label_map: "7", "128,0,0" or "transparent"."""
    if code >= CLEAR:
        return TRANSPARENT if code == CLEAR else "nodata"
    return ",".join(map(str, colour_of(code))) if in_colour else str(code)


def code_of(key: str) -> int:
    """Return the code of a key of label_map."""
    if key == TRANSPARENT:
        return CLEAR
    parts = [int(part) for part in key.split(",")]
    return sum(part << 8 * place for place, part in enumerate(parts))
