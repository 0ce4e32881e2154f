"""From the values or colours in use to classes."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from data_tools.prepare.survey import Masks
from dataset.labels import colour_of, key_of
from util.config import IGNORE
from util.errors import UserError
from util.palette import IGNORE_COLOUR

MAX_CLASSES = 254
Colour = tuple[int, int, int]


class Classes(NamedTuple):
    """What the config says of classes."""

    names: list[str]
    palette: list[Colour] | None
    of: dict[int, int]
    """The class, or 255, of each value or colour (as a code of dataset.labels) in use."""
    in_colour: bool
    mapped: bool
    """Whether the config needs this as its label_map: values are not just indices."""


def choose_classes(
    masks: Masks, names: Sequence[str] | None, ignored: Sequence[str] | None
) -> Classes:
    """A class for each value or colour but the ignored ones (by default a guess).

    Args:
        names: of the classes, in the order of values or colours.

    Raises `UserError` for fewer than 2 classes or more than 254, and for a wrong number of names.
    """
    found = {key_of(code, masks.in_colour): code for code in _in_use(masks)}
    if ignored is None:
        ignored = _guess_ignored(found, masks.in_colour, len(names or ()))
    elif missing := [key for key in ignored if key not in found]:
        raise UserError(f"--ignore {missing[0]}: not in the masks; {_show(found)}")
    kept = {key: code for key, code in found.items() if key not in ignored}
    if not 2 <= len(kept) <= MAX_CLASSES:
        reason = "; were masks resized, or saved with losses?" if len(kept) > MAX_CLASSES else ""
        raise UserError(
            f"--masks: {_show(found)}, {len(found) - len(kept)} of them ignored; expected 2 to "
            f"{MAX_CLASSES} classes{reason}"
        )
    count = len(names or kept)
    are_indices = (
        not masks.in_colour and set(ignored) <= {str(IGNORE)} and max(kept.values()) < count
    )
    codes = list(range(count)) if are_indices else list(kept.values())
    if count != len(codes):
        raise UserError(f"--classes: {count} names; {_show(kept)}")
    labels = range(count) if masks.in_colour else codes
    colours = codes if masks.in_colour else [masks.palette.get(code) for code in codes]
    classes = {code: index for index, code in enumerate(codes)}
    return Classes(
        list(names or (f"class_{label}" for label in labels)),
        [colour_of(c) for c in colours] if len(set(colours) - {None}) == count else None,
        {code: classes.get(code, IGNORE) for code in found.values()},
        masks.in_colour,
        mapped=not are_indices,
    )


def _in_use(masks: Masks) -> list[int]:
    """All values, or colours by red, green and blue."""
    codes = {code for pixels in masks.pixels for code in pixels}
    return sorted(codes, key=colour_of if masks.in_colour else None)


def _guess_ignored(found: dict[str, int], in_colour: bool, names: int) -> list[str]:
    """VOC's colour of borders; 255 beside indices, or where there is one name less than values."""
    key = ",".join(map(str, IGNORE_COLOUR)) if in_colour else str(IGNORE)
    if key not in found:
        return []
    others = [code for code in found.values() if code != IGNORE]
    # {0, 255} is one class and another, {0, 64, 128, 255} are grey levels; indices lie close.
    are_close = any(b - a < 10 for a, b in pairwise(others))
    return [key] if in_colour or are_close or names == len(others) > 1 else []


def _show(keys: dict[str, int], limit: int = 8) -> str:
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return f"found {len(keys)} values: {'; '.join(list(keys)[:limit])}{more}"
