"""Content of masks: sizes, kinds, values, colours; each file is opened once."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataset.mask_files import (
    CLEAR,
    NODATA,
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
    """Content of a mask, by value or colour, as codes of dataset.mask_files."""

    path: Path
    size: tuple[int, int]
    mode: str
    in_colour: bool
    translucent: bool
    """True if pixels are partly transparent; their value or colour counts."""
    pixels_without_data: int
    """Pixels without data, by a mask, or by a nodata value that is no whole number."""
    nodata_values: set[int]
    """The nodata value of a TIFF, where pixels have it."""
    pixels: dict[int, int]
    """Number of pixels of each code."""
    colours: dict[int, int]
    """The colour of each value, in 8 bits; none where it has no such colours."""
    solid: set[int]
    """Codes that fill 3x3 pixels somewhere, as values smoothed along borders do not."""

    def by_colour(self) -> "MaskFile":
        """Return the content with colours in place of values."""
        pixels: Counter[int] = Counter()
        for code, count in self.pixels.items():
            pixels[self.colours.get(code, code)] += count
        nodata_values, solid = (
            {self.colours.get(code, code) for code in codes}
            for codes in (self.nodata_values, self.solid)
        )
        return self._replace(pixels=pixels, nodata_values=nodata_values, solid=solid)


class Value(NamedTuple):
    """A value or colour of masks."""

    code: int
    key: str
    """Key of data.label_map."""
    share: float
    """Share of all pixels."""
    masks: list[int]
    """Positions of the masks that hold it."""
    is_solid: bool
    """True if it fills 3x3 pixels somewhere."""
    is_nodata: bool
    """True if a file marks it as nodata."""


class Masks(NamedTuple):
    """Content of all masks."""

    files: list[MaskFile]
    in_colour: bool
    """True if colours define the classes, not values."""
    palette: dict[int, int]
    """The colour of each value, if the masks have a palette."""
    values: dict[str, Value]
    """All values, or colours by red, green and blue, by their keys."""


def inspect_mask(path: Path, max_megapixels: int) -> MaskFile:
    """Read a mask; raises `UserError` for an unreadable or too large file, JPEG and photographs."""
    mask = read_mask(path, max_megapixels)
    in_colour = not has_values(mask)
    codes = mask_codes(mask, path, in_colour)
    alpha = alpha_of(mask)
    found, counts = np.unique(codes, return_counts=True)
    pixels = dict(zip(found.tolist(), counts.tolist(), strict=True))
    pixels_without_data = pixels.pop(NODATA, 0)
    solid = _solid(codes) - {NODATA}
    if len(found) > MAX_VALUES and 2 * sum(pixels[code] for code in solid) < codes.size:
        raise UserError(
            f"{path}: {len(found)} values or colours; expected a mask with one per class"
        )
    return MaskFile(
        path,
        mask.size,
        mask_kind(mask),
        in_colour,
        translucent=alpha is not None and bool(((alpha > 0) & (alpha < alpha.max())).any()),
        pixels_without_data=pixels_without_data,
        nodata_values=set()
        if mask.nodata_value_mask is None
        else set(np.unique(codes[mask.nodata_value_mask]).tolist()),
        pixels=pixels,
        colours={} if in_colour else value_colours(mask, pixels.keys() - {CLEAR}),
        solid=solid,
    )


def _solid(codes: np.ndarray) -> set[int]:
    """Return the codes of `[H, W]` that fill 3x3 pixels somewhere."""
    rows = (codes[:, :-2] == codes[:, 1:-1]) & (codes[:, 1:-1] == codes[:, 2:])
    middle = codes[:, 1:-1]
    filled = rows[:-2] & rows[1:-1] & rows[2:]
    filled &= (middle[:-2] == middle[1:-1]) & (middle[1:-1] == middle[2:])
    return set(np.unique(middle[1:-1][filled]).tolist())


def combine(files: list[MaskFile], named_colours: bool | None = None) -> Masks:
    """Combine the content of masks.

    Colours define the classes if a mask is in colour, if palettes give one index several colours
    (as programs do that number the colours of each picture anew), and if masks of several kinds
    agree by colour alone. `named_colours`: the user names colours (True) or values (False); None:
    neither.

    Raises `UserError` for colours beside values without colours, and if neither agrees.
    """
    palette, agree = _common_palette(files)
    in_colour = not agree or any(file.in_colour for file in files)
    have_colours = all(file.in_colour or file.colours for file in files)
    if in_colour and not have_colours:
        raise UserError(
            "--masks: some are in colour, others have 16 bits; expected one kind. Fix: convert them"
        )
    if have_colours and not in_colour:
        in_colour = _by_kind(files) if named_colours is None else named_colours
    if in_colour:
        files, palette = [file.by_colour() for file in files], {}
    return Masks(files, in_colour, palette, _values(files, in_colour))


def _values(files: Sequence[MaskFile], in_colour: bool) -> dict[str, Value]:
    pixels: Counter[int] = Counter()
    masks: dict[int, list[int]] = defaultdict(list)
    for number, file in enumerate(files):
        pixels.update(file.pixels)
        for code in file.pixels:
            masks[code].append(number)
    solid = set().union(*(file.solid for file in files))
    nodata_values = set().union(*(file.nodata_values for file in files))
    total = pixels.total()
    values = [
        Value(code, key_of(code, in_colour), pixels[code] / total, masks[code],
              code in solid, code in nodata_values)
        for code in sorted(pixels, key=colour_of if in_colour else None)
    ]  # fmt: skip
    return {value.key: value for value in values}


def _by_kind(files: Sequence[MaskFile]) -> bool:
    """Return True if colours define the classes of masks of several kinds."""
    found = agreement(
        (file.mode, {v: file.colours[v] for v in file.pixels if v in file.colours})
        for file in files
    )
    if not (found.by_value or found.by_colour):
        first = {file.mode: file.path.name for file in reversed(files)}
        some = ", ".join(f"mode {mode} ({name})" for mode, name in first.items())
        raise UserError(
            f"--masks: several kinds, {some}; what is one class in all of them? name the values "
            "(--classes 0=background,1=object) or the colours (0,0,0=background,255,255,255=object)"
        )
    return not found.by_value


def _common_palette(files: Sequence[MaskFile]) -> tuple[dict[int, int], bool]:
    """Return the common palette of masks, and whether masks agree on the indices in use."""
    palettes = [file for file in files if file.mode == "P"]
    palette = dict(palettes[0].colours) if palettes else {}
    used: dict[int, int] = {}
    agree = True
    for file in palettes:
        for value in file.pixels.keys() - {CLEAR}:
            agree &= used.setdefault(value, colour := file.colours[value]) == colour
    return palette | used, agree
