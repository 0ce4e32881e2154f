"""Signs that values or colours of masks are no classes: stray values, numbers of objects, and
classes stored in two ways."""

from collections import Counter
from collections.abc import Container, Mapping

from dataset.mask_files import CLEAR
from tools.prepare.own.masks import Masks, Value
from util.colours import IGNORE_COLOUR
from util.config.types import IGNORE

THIN = 0.02
"""Share of the pixels below which a value is a stray if it fills 3x3 pixels nowhere, as along
borders."""
STRAY_SHARE, STRAY_MASKS = 1e-4, 0.02
"""Share of the pixels and of the masks below which a value is a stray, unless values just count
classes."""
SMALL, LARGE = 32, 64
"""Largest value of masks of class indices, smallest one of masks of visible grey values."""
OBJECTS = 8
"""Number of values that makes masks look as if they number objects."""


def void_key(in_colour: bool) -> str:
    """Return the value or colour of ignored pixels in public datasets."""
    return ",".join(map(str, IGNORE_COLOUR)) if in_colour else str(IGNORE)


def stray_values(values: Mapping[int, Value], in_colour: bool, masks: int) -> set[int]:
    """Return the codes that are hardly classes: from smoothing along borders, or mistakes in a few
    of the `masks`."""
    own = {code: value for code, value in values.items() if value.key != void_key(in_colour)}
    thin = {code for code, value in own.items() if not value.solid and value.share < THIN}
    consecutive = not in_colour and max(own, default=0) - min(own, default=0) < len(own)
    if consecutive and (2 * len(thin) < len(own) or max(own) <= SMALL):
        return set()  # the values just count classes
    rare = {
        code
        for code, value in own.items()
        if value.share < STRAY_SHARE and len(value.masks) <= STRAY_MASKS * masks
    }
    stray = thin | rare
    return stray if len(values) - len(stray) > 1 else set()


def objects(masks: Masks) -> str:
    """Describe masks that seem to number objects instead of classes; "" for other masks."""
    count = len(masks.pixels)
    holding = Counter(code for pixels in masks.pixels for code in pixels if code in masks.solid)
    once = sum(number == 1 for number in holding.values())
    if count > 1 and once >= max(OBJECTS, 2 * count, 0.8 * len(masks.solid)):
        what = "colours" if masks.in_colour else "values"
        return f"{once} of {len(masks.solid)} {what} are in one mask only"
    if masks.in_colour:
        return ""
    numbers = [set(pixels) - {0, IGNORE, CLEAR} for pixels in masks.pixels]
    most = max(map(len, numbers))
    varied = 2 * sum(len(found) == most for found in numbers) < count
    counted = sum(found == set(range(1, max(found, default=0) + 1)) - {IGNORE} for found in numbers)
    if most >= OBJECTS and varied and counted >= 0.9 * count:
        return f"{counted} of {count} masks count from 1 without a gap, up to {most}"
    return ""


def two_scales(masks: Masks, ignored: Container[str]) -> tuple[list[int], list[int]] | None:
    """Return values that seem to be the same classes stored in two ways, such as 1 in some masks
    and 255 in the others; None for masks of one kind. `ignored`: values that count for nothing."""
    if masks.in_colour:
        return None
    nothing = {0, CLEAR} | {code for code, value in masks.values.items() if value.key in ignored}
    held = [values for pixels in masks.pixels if (values := set(pixels) - nothing)]
    small = [values for values in held if max(values) <= SMALL]
    large = [values for values in held if min(values) >= LARGE]
    if len(small) + len(large) < len(held) or not (small and large):
        return None
    low, high = (sorted(set().union(*some)) for some in (small, large))
    return (low, high) if len(low) == len(high) else None
