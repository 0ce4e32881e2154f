"""Values or colours in use: their frequency, strays that are no classes, and masks that number
objects instead of classes."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from dataset.mask_files import CLEAR, colour_of, key_of
from tools.prepare.own.survey import Masks
from util.colours import IGNORE_COLOUR
from util.config.types import IGNORE

THIN = 0.02
"""Share below which a value is a stray that fills 3x3 pixels nowhere, as along borders."""
RARE = 1e-4
"""A value is rare that has a smaller share of the pixels, and is in a smaller share of the masks
than `RARE_MASKS`: a stray, unless values just count classes."""
RARE_MASKS = 0.02
"""Share of the masks, see `RARE`."""
SMALL, LARGE = 32, 64
"""Class indices are at most the one, grey values that were chosen to be seen at least the other."""
CAMP = 0.2
"""The share of masks that make two ways of storing likely."""
OBJECTS = 8
"""Values of a kind that make masks look as if they told objects."""


class Value(NamedTuple):
    """A value or colour of masks."""

    key: str
    """Key of data.label_map."""
    share: float
    """Share of all pixels."""
    masks: list[int]
    """The numbers of the masks that hold it."""
    solid: bool
    """True where it fills 3x3 pixels somewhere."""


def values_in_use(masks: Masks) -> dict[int, Value]:
    """Return all values, or colours by red, green and blue, by their codes."""
    pixels: Counter[int] = Counter()
    holding: dict[int, list[int]] = defaultdict(list)
    for number, counts in enumerate(masks.pixels):
        pixels.update(counts)
        for code in counts:
            holding[code].append(number)
    solid = set().union(*masks.solid)
    total = pixels.total()
    return {
        code: Value(
            key_of(code, masks.in_colour), pixels[code] / total, holding[code], code in solid
        )
        for code in sorted(pixels, key=colour_of if masks.in_colour else None)
    }


def void_key(in_colour: bool) -> str:
    """Return the value or colour by which public datasets ignore pixels."""
    return ",".join(map(str, IGNORE_COLOUR)) if in_colour else str(IGNORE)


def strays(values: Mapping[int, Value], in_colour: bool, masks: int) -> set[int]:
    """Return the codes that are hardly classes: left by smoothing along borders, or by a slip in a
    few of the `masks`."""
    own = {code: value for code, value in values.items() if value.key != void_key(in_colour)}
    thin = {code for code, value in own.items() if not value.solid and value.share < THIN}
    rare = {
        code
        for code, value in own.items()
        if value.share < RARE and len(value.masks) <= RARE_MASKS * masks
    }
    consecutive = not in_colour and max(own, default=0) - min(own, default=0) < len(own)
    found = set() if consecutive and 2 * len(thin) < len(own) else thin | rare
    return found if len(values) - len(found) > 1 else set()


def objects(masks: Masks) -> str:
    """Describe masks that number objects instead of classes; '' where they do not seem to."""
    count = len(masks.pixels)
    solid = set().union(*masks.solid)
    holding = Counter(code for pixels in masks.pixels for code in pixels if code in solid)
    once = sum(number == 1 for number in holding.values())
    if count > 1 and once >= max(OBJECTS, 2 * count, 0.8 * len(solid)):
        what = "colours" if masks.in_colour else "values"
        return f"{once} of {len(solid)} {what} are in one mask only"
    if masks.in_colour:
        return ""
    numbers = [set(pixels) - {0, IGNORE, CLEAR} for pixels in masks.pixels]
    most = max(map(len, numbers))
    varied = 2 * sum(len(found) == most for found in numbers) < count
    counted = sum(found == set(range(1, max(found, default=0) + 1)) - {IGNORE} for found in numbers)
    if most >= OBJECTS and varied and counted >= 0.9 * count:
        return f"{counted} of {count} masks count from 1 without a gap, up to {most}"
    return ""


def two_scales(masks: Masks) -> tuple[list[int], list[int]] | None:
    """Values that seem to be the same classes stored in two ways, such as 1 in some masks and 255
    in the others; None where masks are of one kind."""
    if masks.in_colour:
        return None
    held = [set(pixels) - {0, CLEAR} for pixels in masks.pixels]
    held = [values for values in held if values]
    small = [values for values in held if max(values) <= SMALL]
    large = [values for values in held if min(values) >= LARGE]
    if len(small) + len(large) < len(held) or min(len(small), len(large)) < max(
        2, CAMP * len(held)
    ):
        return None
    low, high = (sorted(set().union(*some)) for some in (small, large))
    return (low, high) if len(low) == len(high) else None
