"""Content of masks: sizes, kinds, values, colours; each file is opened once."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataset.mask_files import (
    CLEAR,
    VOID,
    alpha_of,
    colour_of,
    has_values,
    key_of,
    mask_codes,
    read_mask,
)
from dataset.mask_kinds import agreement, mask_kind, value_colours
from util.errors import UserError

MAX_VALUES = 1024  # no mask of 254 classes has more, unless it was smoothed


class MaskFile(NamedTuple):
    """Content of a mask."""

    path: Path
    size: tuple[int, int]
    mode: str
    in_colour: bool
    translucent: bool
    """True if pixels are partly transparent; their value or colour counts."""
    no_data: int
    """Pixels without data, by a mask, or by a nodata value that is no whole number."""
    nodata: set[int]
    """The nodata value of a TIFF, where pixels have it: a code as in `pixels`."""
    pixels: dict[int, int]
    """Number of pixels by value, or by code (dataset.mask_files) of a colour."""
    colours: dict[int, int]
    """The colour of each value, in 8 bits; none where it has no such colours."""
    solid: set[int]
    """Values that fill 3x3 pixels somewhere, as values smoothed along borders do not."""


class Value(NamedTuple):
    """A value or colour of masks."""

    key: str
    """Key of data.label_map."""
    share: float
    """Share of all pixels."""
    masks: list[int]
    """Positions of the masks that hold it."""
    solid: bool
    """True if it fills 3x3 pixels somewhere."""


class Masks:
    """Content of all masks.

    Args:
        in_colour: True if colours define the classes, not values.
        palette: the colour of each value, if the masks have a palette.
    """

    def __init__(self, files: Sequence[MaskFile], in_colour: bool, palette: dict[int, int]):
        self.files, self.in_colour = files, in_colour
        self.palette = {} if in_colour else palette
        self.pixels = [_by_colour(file) if in_colour else file.pixels for file in files]
        """Number of pixels of each mask, by value or colour."""
        self.solid = {
            file.colours.get(code, code) if in_colour else code
            for file in files
            for code in file.solid
        }
        """Values or colours that fill 3x3 pixels somewhere."""
        self.nodata = {
            file.colours.get(code, code) if in_colour else code
            for file in files
            for code in file.nodata
        }
        """Values or colours that a file marks as nodata."""

    @cached_property
    def values(self) -> dict[int, Value]:
        """All values, or colours by red, green and blue, by their codes."""
        pixels: Counter[int] = Counter()
        holding: dict[int, list[int]] = defaultdict(list)
        for number, counts in enumerate(self.pixels):
            pixels.update(counts)
            for code in counts:
                holding[code].append(number)
        total = pixels.total()
        return {
            code: Value(
                key_of(code, self.in_colour),
                pixels[code] / total,
                holding[code],
                code in self.solid,
            )
            for code in sorted(pixels, key=colour_of if self.in_colour else None)
        }


def inspect_mask(path: Path, max_megapixels: int) -> MaskFile:
    """Read a mask; raises `UserError` for an unreadable or too large file, JPEG and photographs."""
    mask = read_mask(path, max_megapixels)
    in_colour = not has_values(mask)
    codes = mask_codes(mask, path, in_colour)
    alpha = alpha_of(mask)
    translucent = alpha is not None and bool(((alpha > 0) & (alpha < alpha.max())).any())
    found, counts = np.unique(codes, return_counts=True)
    pixels = dict(zip(found.tolist(), counts.tolist(), strict=True))
    no_data = pixels.pop(VOID, 0)
    solid = _solid(codes) - {VOID}
    nodata = set() if mask.nodata is None else set(np.unique(codes[mask.nodata]).tolist())
    if len(found) > MAX_VALUES and 2 * sum(pixels[code] for code in solid) < codes.size:
        raise UserError(
            f"{path}: {len(found)} values or colours; expected a mask with one per class"
        )
    colours = {} if in_colour else value_colours(mask, pixels.keys() - {CLEAR})
    kind = mask_kind(mask)
    return MaskFile(
        path, mask.size, kind, in_colour, translucent, no_data, nodata, pixels, colours, solid
    )


def _solid(codes: np.ndarray) -> set[int]:
    """Return the codes of `[H, W]` that fill 3x3 pixels somewhere."""
    rows = (codes[:, :-2] == codes[:, 1:-1]) & (codes[:, 1:-1] == codes[:, 2:])
    middle = codes[:, 1:-1]
    filled = rows[:-2] & rows[1:-1] & rows[2:]
    filled &= (middle[:-2] == middle[1:-1]) & (middle[1:-1] == middle[2:])
    return set(np.unique(middle[1:-1][filled]).tolist())


def combine(masks: Sequence[MaskFile], named_colours: bool | None = None) -> Masks:
    """Combine the content of masks.

    Colours define the classes if a mask is in colour, if palettes give one index several colours
    (as programs do that number the colours of each picture anew), and if masks of several kinds
    agree by colour alone.

    Args:
        named_colours: the user names colours (True) or values (False); None: neither.

    Raises `UserError` for colours beside values without colours, and if neither agrees.
    """
    palette, agree = _common_palette(masks)
    in_colour = not agree or any(mask.in_colour for mask in masks)
    have_colours = all(mask.in_colour or mask.colours for mask in masks)
    if in_colour and not have_colours:
        raise UserError(
            "--masks: some are in colour, others have 16 bits; expected one kind. Fix: convert them"
        )
    if have_colours and not in_colour:
        in_colour = _by_kind(masks) if named_colours is None else named_colours
    return Masks(masks, in_colour, palette)


def _by_kind(masks: Sequence[MaskFile]) -> bool:
    """Return whether colours define the classes of masks of several kinds."""
    used = (
        (mask.mode, {v: mask.colours[v] for v in mask.pixels if v in mask.colours})
        for mask in masks
    )
    found = agreement(used)
    if not (found.by_value or found.by_colour):
        first = {mask.mode: mask.path.name for mask in reversed(masks)}
        some = ", ".join(f"mode {mode} ({name})" for mode, name in first.items())
        raise UserError(
            f"--masks: several kinds, {some}; what is one class in all of them? name the values "
            "(--classes 0=background,1=object) or the colours (0,0,0=background,255,255,255=object)"
        )
    return not found.by_value


def _common_palette(masks: Sequence[MaskFile]) -> tuple[dict[int, int], bool]:
    """Return the common palette of masks, and whether masks agree on the indices in use."""
    palettes = [mask for mask in masks if mask.mode == "P"]
    palette = dict(palettes[0].colours) if palettes else {}
    used: dict[int, int] = {}
    agree = True
    for mask in palettes:
        for value in mask.pixels.keys() - {CLEAR}:
            agree &= used.setdefault(value, colour := mask.colours[value]) == colour
    return palette | used, agree


def _by_colour(mask: MaskFile) -> dict[int, int]:
    if mask.in_colour:
        return mask.pixels
    pixels: Counter[int] = Counter()
    for value, count in mask.pixels.items():
        pixels[mask.colours.get(value, value)] += count
    return pixels
