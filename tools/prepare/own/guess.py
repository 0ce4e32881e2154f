"""Class names of mask values: from --classes, otherwise guessed. Ambiguous masks raise a question.

Signs that values are no classes: stray values, numbers of objects, classes stored in two ways.
"""

from collections.abc import Container, Mapping, Sequence
from itertools import pairwise

from dataset.mask_files import CLEAR
from tools.prepare.own.classes import (
    IGNORED,
    MAX_NEAREST,
    NEAREST,
    ClassOptions,
    class_names,
    describe_values,
)
from tools.prepare.own.masks import Masks, Value
from util.colours import IGNORE_COLOUR
from util.config.label_map import OTHER, TRANSPARENT, WORDS
from util.config.types import IGNORE
from util.errors import UserError

CHANGES = ["unchanged", "changed"]
"""Classes of image pairs, unless `--classes` names others."""
MAX_IGNORED_SHARE = 0.1
"""Share of the pixels above which a value is not ignored without asking."""
MAX_BORDER_SHARE = 0.02
"""Share of the pixels below which a value is a stray if it fills 3x3 pixels nowhere, as along
borders."""
STRAY_SHARE, STRAY_MASKS = 1e-4, 0.02
"""Share of the pixels and of the masks below which a value is a stray, unless values just count
classes."""
MAX_INDEX, MIN_GREY = 32, 64
"""Largest value of masks of class indices, smallest one of masks of visible grey values."""
VOID_KEYS = {False: str(IGNORE), True: ",".join(map(str, IGNORE_COLOUR))}
"""Value and colour of ignored pixels in public datasets."""
MIN_OBJECT_VALUES = 8
"""Number of values that makes masks look as if they number objects."""


class AmbiguousMasks(UserError):
    """A question that masks leave open; `labels` holds a possible answer."""

    def __init__(self, message: str, labels: Mapping[str, str]):
        super().__init__(message)
        self.labels = labels


def choose_labels(masks: Masks, named: ClassOptions, of_change: bool) -> dict[str, str]:
    """Return the class, or `ignore`, of each value or colour, as `--classes` writes them.

    Raises `AmbiguousMasks` for ambiguous values, and `UserError` for names that do not fit the
    masks.
    """
    for key in named.labels:
        if key not in WORDS and ("," in key) != masks.in_colour:
            what = "colours" if masks.in_colour else "values"
            raise UserError(
                f"{key}: the masks hold {what}; found {describe_values(masks.values.values())}"
            )
    if class_names(named.labels):
        return _as_named(masks, named.labels)
    return _guess(masks, named, of_change)


def _as_named(masks: Masks, labels: dict[str, str]) -> dict[str, str]:
    """Return the named meanings, and the nodata values of the files as ignored; raises
    `AmbiguousMasks` for other values without a meaning."""
    rest = [value for key, value in masks.values.items() if key not in labels]
    left = [value for value in rest if not value.is_nodata]
    if any(value.key == TRANSPARENT for value in left) and labels.get(OTHER) == NEAREST:
        raise AmbiguousMasks("--classes: has no class for transparent pixels", _with_clear(labels))
    if left and OTHER not in labels:
        raise AmbiguousMasks(
            f"--classes: has no class for {describe_values(left)}", labels | {OTHER: NEAREST}
        )
    return labels | {value.key: IGNORED for value in rest if value.is_nodata}


def _guess(masks: Masks, named: ClassOptions, of_change: bool) -> dict[str, str]:
    """Guess the meaning of values; raises `AmbiguousMasks` for ambiguous values."""
    values, in_colour = masks.values, masks.in_colour
    if how := _instance_numbering(masks):
        raise UserError(
            f"--masks: one value per object, it seems, not per class ({how}); for a single class "
            'of objects say --classes "0=background,other=object"'
        )
    if missing := [key for key in named.labels if key not in values and key != OTHER]:
        raise UserError(
            f"--ignore {missing[0]}: not in the masks; found {describe_values(values.values())}"
        )
    kept = [v for v in values.values() if v.key not in named.labels and v.code != CLEAR]
    all_named = len(named.names) == len(kept) and not in_colour
    strays = set() if all_named else _strays(kept, in_colour, len(masks.files))
    kept = [value for value in kept if value.key not in strays]
    void = _nodata(kept, len(named.names), in_colour)
    if named.labels.keys() <= {OTHER}:
        void |= _usual_void([value for value in kept if value.key not in void], in_colour)
    unasked = [value for value in kept if value.key in void]
    keys = [value.key for value in kept if value.key not in void]
    names = named.names or (_changes(keys) if of_change else [])
    ignored = named.labels | {value.key: IGNORED for value in unasked}
    guess = _with_names(keys, names, in_colour) | ignored
    _raise_doubts(masks, named.labels, guess, strays)
    for value in (value for value in unasked if value.share > MAX_IGNORED_SHARE):
        tag = ", the nodata value" if value.is_nodata else ""
        problem = f"--masks: {value.share:.0%} of the pixels are {value.key}{tag}"
        raise AmbiguousMasks(f"{problem}; is this value ignored, or a class?", guess)
    if in_colour and names:
        raise AmbiguousMasks("--classes: unclear which of the colours is which class", guess)
    if names and len(guess.keys() - ignored.keys()) != len(names):
        found = describe_values(values[key] for key in keys)
        raise AmbiguousMasks(f"--classes: {len(names)} names for {found}", guess)
    return guess


def _raise_doubts(
    masks: Masks, ignored: Container[str], guess: dict[str, str], strays: Container[str]
) -> None:
    """Raise `AmbiguousMasks` for transparent pixels, classes stored in two ways, stray values."""
    if TRANSPARENT in masks.values and TRANSPARENT not in guess:
        share = f"{masks.values[TRANSPARENT].share:.1%}"
        problem = f"--masks: {share} of the pixels are transparent"
        raise AmbiguousMasks(f"{problem}; are they ignored, or a class?", _with_clear(guess))
    if scales := _two_scales(masks, ignored):
        small, large = scales
        same = {key: guess.get(low, f"class_{low}") for low, key in zip(small, large, strict=True)}
        raise AmbiguousMasks(
            f"--masks: {'; '.join(small)} and {'; '.join(large)} are in no mask together: the same "
            "classes, stored in two ways?",
            {key: label for key, label in guess.items() if key not in same} | same,
        )
    if strays and OTHER not in guess:
        found = [value for key, value in masks.values.items() if key in strays]
        rest = NEAREST if len(found) <= MAX_NEAREST else IGNORED
        problem = f"--masks: these values do not look like classes: {describe_values(found)}"
        raise AmbiguousMasks(problem, guess | {OTHER: rest})


def _changes(keys: list[str]) -> list[str]:
    """Return the default names of classes of change: value 0 of several is "unchanged"."""
    if len(keys) == len(CHANGES):
        return CHANGES
    return [CHANGES[0] if key == "0" else f"class_{key}" for key in keys] if "0" in keys else []


def _with_clear(labels: dict[str, str]) -> dict[str, str]:
    """Add transparent pixels: ignored, or the background where no class is black."""
    black = {"0", "0,0,0"} & labels.keys()
    return labels | {TRANSPARENT: IGNORED if black else "background"}


def _with_names(keys: list[str], names: list[str], in_colour: bool) -> dict[str, str]:
    """Return the names of classes by key; of indices, names may outnumber values."""
    if not in_colour and all(int(key) < len(names) for key in keys):
        return {str(number): name for number, name in enumerate(names)}
    rest = range(len(names), len(keys))
    more = [f"class_{number if in_colour else keys[number]}" for number in rest]
    return dict(zip(keys, [*names, *more], strict=False))


def _nodata(kept: Sequence[Value], names: int, in_colour: bool) -> set[str]:
    """Return the nodata values of the files, which are ignored; none where the names include them,
    or where they must be a class, as there is only one other value."""
    found = {value.key for value in kept if value.is_nodata}
    without_255 = sum(in_colour or value.code != IGNORE for value in kept)
    is_class = names in (len(kept), without_255) or len(kept) - len(found) < 2
    return set() if is_class else found


def _usual_void(kept: Sequence[Value], in_colour: bool) -> set[str]:
    """Return the value to ignore, if any: VOC's colour of borders, or 255 in masks of indices."""
    others = [value.code for value in kept if value.code != IGNORE]
    # {0, 255} is one class and another, {0, 64, 128, 255} are grey levels; indices are close.
    are_close = any(b - a < 10 for a, b in pairwise(others))
    found = {value.key for value in kept if value.key == VOID_KEYS[in_colour]}
    return found if in_colour or are_close else set()


def _strays(values: Sequence[Value], in_colour: bool, masks: int) -> set[str]:
    """Return values that are hardly classes: from smoothing along borders, or mistakes in a few of
    the `masks`."""
    own = [value for value in values if value.key != VOID_KEYS[in_colour]]
    codes = [value.code for value in own]
    thin = {value.key for value in own if not value.is_solid and value.share < MAX_BORDER_SHARE}
    is_dense = not in_colour and max(codes, default=0) - min(codes, default=0) < len(own)
    if is_dense and (2 * len(thin) < len(own) or max(codes) <= MAX_INDEX):
        return set()  # the values just count classes
    rare = {v.key for v in own if v.share < STRAY_SHARE and len(v.masks) <= STRAY_MASKS * masks}
    return thin | rare if len(values) - len(thin | rare) > 1 else set()


def _instance_numbering(masks: Masks) -> str:
    """Describe masks that seem to number objects instead of classes; "" for other masks."""
    count = len(masks.files)
    solid = [value for value in masks.values.values() if value.is_solid]
    once = sum(len(value.masks) == 1 for value in solid)
    if count > 1 and once >= max(MIN_OBJECT_VALUES, 2 * count, 0.8 * len(solid)):
        what = "colours" if masks.in_colour else "values"
        return f"{once} of {len(solid)} {what} are in one mask only"
    if masks.in_colour:
        return ""
    numbers = [set(file.pixels) - {0, IGNORE, CLEAR} for file in masks.files]
    most = max(map(len, numbers))
    varied = 2 * sum(len(found) == most for found in numbers) < count
    counted = sum(found == set(range(1, max(found, default=0) + 1)) - {IGNORE} for found in numbers)
    if most >= MIN_OBJECT_VALUES and varied and counted >= 0.9 * count:
        return f"{counted} of {count} masks count from 1 without a gap, up to {most}"
    return ""


def _two_scales(masks: Masks, ignored: Container[str]) -> tuple[list[str], list[str]] | None:
    """Return values that seem to be the same classes stored in two ways, such as 1 in some masks
    and 255 in the others; None for masks of one kind. `ignored`: values that count for nothing."""
    if masks.in_colour:
        return None
    nothing = {0, CLEAR} | {v.code for v in masks.values.values() if v.key in ignored}
    held = [values for file in masks.files if (values := set(file.pixels) - nothing)]
    small = [values for values in held if max(values) <= MAX_INDEX]
    large = [values for values in held if min(values) >= MIN_GREY]
    if len(small) + len(large) < len(held) or not (small and large):
        return None
    low, high = ([*map(str, sorted(set().union(*sets)))] for sets in (small, large))
    return (low, high) if len(low) == len(high) else None
