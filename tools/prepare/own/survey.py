"""Content of masks: sizes, kinds, values, colours; each file is opened once."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

from dataset.mask_files import (
    CLEAR,
    VOID,
    alpha_of,
    has_values,
    mask_codes,
    read_mask,
)
from dataset.mask_kinds import agreement, mask_kind, value_colours
from util.errors import UserError

R = TypeVar("R")
T = TypeVar("T")
MAX_VALUES = 1024  # no mask of 254 classes has more, unless it was smoothed


class MaskFile(NamedTuple):
    """Content of a mask."""

    path: Path
    size: tuple[int, int]
    mode: str
    in_colour: bool
    is_veiled: bool
    """True where pixels are partly transparent; their value or colour counts."""
    void: int
    """Pixels without data, by the nodata value, mask or alpha of a TIFF."""
    pixels: dict[int, int]
    """Number of pixels by value, or by code (dataset.mask_files) of a colour."""
    colours: dict[int, int]
    """The colour of each value, in 8 bits; none where it has no such colours."""
    solid: set[int]
    """Values that fill 3x3 pixels somewhere, as values smoothed along borders do not."""


class Masks(NamedTuple):
    """Content of all masks."""

    in_colour: bool
    """True where colours tell the classes, not values."""
    modes: list[str]
    pixels: list[dict[int, int]]
    """Number of pixels of each mask, by value or colour."""
    solid: list[set[int]]
    """Values of each mask that fill 3x3 pixels."""
    palette: dict[int, int]
    """The colour of each value, where the masks have a palette."""


def in_threads(items: Sequence[T], do: Callable[[T], R], title: str) -> list[R | UserError]:
    """Call a function for each item, with a progress bar; a `UserError` is a result, too."""

    def found(item: T) -> R | UserError:
        try:
            return do(item)
        except UserError as error:
            return error

    with ThreadPoolExecutor() as pool:
        return list(tqdm(pool.map(found, items), title, len(items), disable=None, leave=False))


def results_of(found: Sequence[R | UserError]) -> list[R]:
    """Return the results; raises `UserError` as `refuse_all` where some are faults."""
    refuse_all([one for one in found if isinstance(one, UserError)])
    return [one for one in found if not isinstance(one, UserError)]


def refuse_all(faults: Sequence[UserError]) -> None:
    """Raise a `UserError` where there are faults, once all of several are printed."""
    if len(faults) > 1:
        print(*faults, sep="\n")
        raise UserError(
            f"{len(faults)} files cannot be used, see above; repair or remove them, or leave them "
            "out with --skip-bad"
        )
    if faults:
        raise faults[0]


def look_at_mask(path: Path, max_megapixels: int) -> MaskFile:
    """Read a mask; raises `UserError` for an unreadable or too large file, JPEG and photographs."""
    mask = read_mask(path, max_megapixels)
    in_colour = not has_values(mask)
    codes = mask_codes(mask, path, in_colour)
    alpha = alpha_of(mask)
    is_veiled = alpha is not None and bool(((alpha > 0) & (alpha < alpha.max())).any())
    found, counts = np.unique(codes, return_counts=True)
    pixels = dict(zip(found.tolist(), counts.tolist(), strict=True))
    void = pixels.pop(VOID, 0)
    solid = _solid(codes) - {VOID}
    if len(found) > MAX_VALUES and 2 * sum(pixels[code] for code in solid) < codes.size:
        raise UserError(f"{path}: {len(found)} values or colours; expected a mask, one a class")
    colours = {} if in_colour else value_colours(mask, pixels.keys() - {CLEAR})
    kind = mask_kind(mask)
    return MaskFile(path, mask.size, kind, in_colour, is_veiled, void, pixels, colours, solid)


def _solid(codes: np.ndarray) -> set[int]:
    """Return the codes of `[H, W]` that fill 3x3 pixels somewhere."""
    rows = (codes[:, :-2] == codes[:, 1:-1]) & (codes[:, 1:-1] == codes[:, 2:])
    middle = codes[:, 1:-1]
    filled = rows[:-2] & rows[1:-1] & rows[2:]
    filled &= (middle[:-2] == middle[1:-1]) & (middle[1:-1] == middle[2:])
    return set(np.unique(middle[1:-1][filled]).tolist())


def together(masks: Iterable[MaskFile], told: bool | None = None) -> Masks:
    """Combine the content of masks. Colours count where a mask is in colour, where palettes give
    one index several colours, as programs do that number the colours of each picture anew, and
    where masks of several kinds agree by colour alone.

    `told`: whether the user names colours (True) or values (False); None for neither.

    Raises `UserError` for colours beside values that have none, and where neither agrees.
    """
    masks = list(masks)
    palette, agree = _common_palette(masks)
    in_colour = not agree or any(mask.in_colour for mask in masks)
    have_colours = all(mask.in_colour or mask.colours for mask in masks)
    if in_colour and not have_colours:
        raise UserError("--masks: some are in colour, some have 16 bits; expected one kind")
    if have_colours and not in_colour:
        in_colour = _by_kind(masks) if told is None else told
    pixels = [_by_colour(mask) if in_colour else mask.pixels for mask in masks]
    solid = [
        {mask.colours.get(code, code) for code in mask.solid} if in_colour else mask.solid
        for mask in masks
    ]
    modes = [mode for mode, _ in Counter(mask.mode for mask in masks).most_common()]
    return Masks(in_colour, modes, pixels, solid, palette if not in_colour else {})


def _by_kind(masks: Sequence[MaskFile]) -> bool:
    """Return whether colours tell the classes of masks of several kinds."""
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


def _common_palette(masks: list[MaskFile]) -> tuple[dict[int, int], bool]:
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
