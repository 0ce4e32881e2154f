"""Classes of values or colours in masks: named by the user, else guessed if unambiguous."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from dataset.mask_files import CLEAR, code_of, colour_of
from tools.prepare.own.mask_values import objects, stray_values, two_scales, void_key
from tools.prepare.own.masks import Masks, Value
from util.colours import Colour
from util.config.label_map import OTHER, TRANSPARENT, WORDS, parse_key
from util.config.types import IGNORE
from util.errors import UserError, counted, join_first

CHANGES = ["unchanged", "changed"]
"""Classes of image pairs, unless `--classes` names others."""
MAX_CLASSES = 254
MUCH = 0.1
"""Share of the pixels above which a value is not ignored without asking."""
MAX_NEAREST = 1000
"""Lines of a label_map that a person can still read."""
RARE = 0.02
"""Share of the pixels below which class weights are proposed."""
IGNORED, NEAREST = "ignore", "nearest"


class Classes(NamedTuple):
    """The config's classes."""

    names: list[str]
    palette: list[Colour] | None
    of: dict[int, int]
    """The class, or 255, of each value or colour (as a code of dataset.mask_files)."""
    other: int | None
    """The class of values that `of` lacks; None: an error."""
    nearest: set[int]
    """Codes that get the class of the nearest code."""
    labels: dict[str, str]
    """The classes as `--classes` writes them."""
    mapped: bool
    """True if values are not class indices: the config needs a label_map."""
    shares: list[float]
    """Share of the masks' pixels of each class."""

    def class_of(self, code: int) -> int | None:
        return self.of.get(code, self.other)

    def rare(self) -> dict[str, float]:
        """Return the share of each class with less than `RARE` of the pixels."""
        shares = zip(self.names, self.shares, strict=True)
        return {name: share for name, share in shares if share < RARE}


class ClassOptions(NamedTuple):
    """The meaning of `--classes` and `--ignore`."""

    names: list[str]
    """Class names; in the order of the values, where no key is named."""
    labels: dict[str, str]
    """A name, `ignore` or `nearest`, by value, colour or `other`."""
    of_change: bool = False
    """True for classes of change, of image pairs."""

    def colours(self) -> bool | None:
        """Return True if the user names colours, False for values, None for neither or both."""
        kinds = {"," in key for key in self.labels if key not in WORDS}
        return kinds.pop() if len(kinds) == 1 else None


class Doubt(UserError):
    """A question that masks leave open; `labels` holds a possible answer."""

    def __init__(self, message: str, labels: Mapping[str, str]):
        super().__init__(message)
        self.labels = labels


def parse_classes(text: str | None, ignored: Sequence[str]) -> ClassOptions:
    """Parse `a,b,c`, or `0=a,255=b` or `255,0,0=a,0,0,0=b,other=ignore`: several may share a name.

    Raises `UserError` for anything else.
    """
    labels = dict.fromkeys(map(_key, ignored), IGNORED)
    names = [name.strip() for name in text.split(",")] if text is not None else []
    if text and "=" in text:
        entry = r"\s*(\d+(?:\s*,\s*\d+\s*,\s*\d+)?|other|transparent)\s*=([^,=]+)(?:,|$)"
        if not re.fullmatch(f"(?:{entry})+", text):
            raise UserError(
                f"--classes {text}: expected VALUE=NAME or R,G,B=NAME, separated by commas; also "
                "other=NAME, other=ignore, other=nearest"
            )
        for key, name in [(_key(key), name.strip()) for key, name in re.findall(entry, text)]:
            if labels.setdefault(key, name) != name:
                raise UserError(
                    f"--classes, --ignore: {key} is both {labels[key]} and {name}; expected one"
                )
        names = _names(labels)
    if "" in names or len(set(names)) < len(names) or len(names) > MAX_CLASSES:
        raise UserError(
            f"--classes {text}: expected distinct names, separated by commas, at most {MAX_CLASSES}"
        )
    return ClassOptions(names, labels)


def _key(text: str) -> str:
    try:
        return parse_key(text)
    except ValueError as error:
        raise UserError(f"--classes, --ignore: {error}") from None


def _names(labels: Mapping[str, str]) -> list[str]:
    """Return the classes, in the order in which they are named."""
    return list(dict.fromkeys(v for v in labels.values() if v not in (IGNORED, NEAREST)))


def choose_classes(masks: Masks, named: ClassOptions) -> Classes:
    """Choose a class for each value or colour.

    Raises `Doubt` for ambiguous values, and `UserError` for names that do not fit the
    masks, and for fewer than 2 classes or more than 254.
    """
    values = masks.values
    for key in named.labels:
        if key not in WORDS and ("," in key) != masks.in_colour:
            what = "colours" if masks.in_colour else "values"
            raise UserError(f"{key}: the masks hold {what}; found {_some(values.values())}")
    labels = _as_named(masks, named) if _names(named.labels) else _guess(masks, named)
    names = _names(labels)
    if not 2 <= len(names) <= MAX_CLASSES:
        fix = ""
        if {value.key for value in values.values()} <= {"0", "0,0,0"}:
            fix = ". Fix: all masks hold only the value 0: export them again"
        elif len(names) < 2:
            fix = ". Fix: name classes that the masks lack in --classes, or export the masks again"
        raise UserError(
            f"--masks: found {_some(values.values())}, which makes "
            f"{counted(len(names), 'class', 'classes')}; expected 2 to {MAX_CLASSES}{fix}"
        )
    index = {name: number for number, name in enumerate(names)} | {IGNORED: IGNORE}
    other = labels.get(OTHER)
    of = {code_of(key): index[label] for key, label in labels.items() if key != OTHER}
    nearest = sorted(set(values) - set(of) - {CLEAR}) if other == NEAREST else []
    if len(nearest) > MAX_NEAREST:
        raise UserError(
            f"--classes: other=nearest would make a label_map of {len(nearest)} lines; expected "
            f"{MAX_NEAREST} at most; say other=ignore"
        )
    mapped = masks.in_colour or other is not None or any(k != v for k, v in of.items())
    palette = _palette(masks, of, len(names))
    of = of | {code: of[_nearest(code, of, masks.in_colour)] for code in nearest}
    rest = None if other in (None, NEAREST) else index.get(other)
    shares = [0.0] * len(names)
    for code, value in values.items():
        if (label := of.get(code, rest)) not in (None, IGNORE):
            shares[label] += value.share
    return Classes(names, palette, of, rest, set(nearest), labels, mapped, shares)


def _palette(masks: Masks, of: dict[int, int], count: int) -> list[Colour] | None:
    """Return the colour of each of `count` classes in the masks; None where all are grey, or two
    are equal."""
    first = {label: code for code, label in reversed(of.items())}
    codes = [first[label] for label in range(count) if label in first]
    in_colour = codes if masks.in_colour else [masks.palette.get(code, -1) for code in codes]
    colours = [colour_of(code) for code in in_colour if code != -1]
    is_grey = all(len(set(colour)) == 1 for colour in colours)  # values, not chosen colours
    return colours if len(set(colours)) == count and not is_grey else None


def _as_named(masks: Masks, named: ClassOptions) -> dict[str, str]:
    """Return the named meanings, and the nodata values of the files as ignored; raises `Doubt` for
    other values without a meaning."""
    rest = {code: value for code, value in masks.values.items() if value.key not in named.labels}
    nodata = {value.key: IGNORED for code, value in rest.items() if code in masks.nodata}
    left = [value for value in rest.values() if value.key not in nodata]
    if any(value.key == TRANSPARENT for value in left) and named.labels.get(OTHER) == NEAREST:
        raise Doubt("--classes: has no class for transparent pixels", _clear(named.labels))
    if left and OTHER not in named.labels:
        raise Doubt(f"--classes: has no class for {_some(left)}", named.labels | {OTHER: NEAREST})
    return named.labels | nodata


def _guess(masks: Masks, named: ClassOptions) -> dict[str, str]:
    """Guess the meaning of values; raises `Doubt` for ambiguous values."""
    values = masks.values
    if how := objects(masks):
        raise UserError(
            f"--masks: one value per object, it seems, not per class ({how}); for a single class "
            'of objects say --classes "0=background,other=object"'
        )
    ignored = dict(named.labels)
    found = {value.key for value in values.values()} | {OTHER}
    if missing := [key for key in ignored if key not in found]:
        raise UserError(f"--ignore {missing[0]}: not in the masks; found {_some(values.values())}")
    kept = {code: v for code, v in values.items() if v.key not in ignored and code != CLEAR}
    all_named = len(named.names) == len(kept) and not masks.in_colour
    odd = set() if all_named else stray_values(kept, masks.in_colour, len(masks.files))
    kept = {code: value for code, value in kept.items() if code not in odd}
    nodata = _nodata(kept, masks, named)
    kept = {code: value for code, value in kept.items() if value not in nodata}
    void = _void(kept, masks.in_colour) if set(ignored) <= {OTHER} else None
    unasked = nodata + ([void] if void else [])
    ignored |= {value.key: IGNORED for value in unasked}
    classes = [value for value in kept.values() if value is not void]
    keys = [value.key for value in classes]
    names = named.names or (_changes(keys) if named.of_change else [])
    guess = _with_names(keys, names, masks.in_colour) | ignored
    _raise_doubts(masks, named, guess, odd)
    for value in unasked:
        if value.share > MUCH:
            tag = ", the nodata value" if value in nodata else ""
            raise Doubt(
                f"--masks: {value.share:.0%} of the pixels are {value.key}{tag}; is this value "
                "ignored, or a class?",
                guess,
            )
    if masks.in_colour and names:
        raise Doubt("--classes: unclear which of the colours is which class", guess)
    if names and len(guess.keys() - ignored.keys()) != len(names):
        raise Doubt(f"--classes: {len(names)} names for {_some(classes)}", guess)
    return guess


def _raise_doubts(
    masks: Masks, named: ClassOptions, guess: Mapping[str, str], odd: set[int]
) -> None:
    """Raise `Doubt` for transparent pixels, classes stored in two ways, and `odd` values."""
    values = masks.values
    if CLEAR in values and TRANSPARENT not in guess:
        raise Doubt(
            f"--masks: {values[CLEAR].share:.1%} of the pixels are transparent; are "
            "they ignored, or a class?",
            _clear(guess),
        )
    if scales := two_scales(masks, named.labels):
        small, large = scales
        names = [guess.get(str(value), f"class_{value}") for value in small]
        same = dict(zip(map(str, large), names, strict=True))
        raise Doubt(
            f"--masks: {'; '.join(map(str, small))} and {'; '.join(map(str, large))} are in no "
            "mask together: the same classes, stored in two ways?",
            {**{key: label for key, label in guess.items() if key not in same}, **same},
        )
    if odd and OTHER not in guess:
        some = _some(value for code, value in values.items() if code in odd)
        rest = NEAREST if len(odd) <= MAX_NEAREST else IGNORED
        raise Doubt(
            f"--masks: these values do not look like classes: {some}", {**guess, OTHER: rest}
        )


def _changes(keys: list[str]) -> list[str]:
    """Return the default names of classes of change: value 0 of several is "unchanged"."""
    if len(keys) == len(CHANGES):
        return CHANGES
    return [CHANGES[0] if key == "0" else f"class_{key}" for key in keys] if "0" in keys else []


def _clear(labels: Mapping[str, str]) -> dict[str, str]:
    """Add transparent pixels: ignored, or the background where no class is black."""
    black = {"0", "0,0,0"} & labels.keys()
    return {**labels, TRANSPARENT: IGNORED if black else "background"}


def _with_names(keys: list[str], names: list[str], in_colour: bool) -> dict[str, str]:
    """Return the names of classes by key; of indices, names may outnumber values."""
    if not in_colour and all(int(key) < len(names) for key in keys):
        return {str(number): name for number, name in enumerate(names)}
    rest = range(len(names), len(keys))
    more = [f"class_{number if in_colour else keys[number]}" for number in rest]
    return dict(zip(keys, [*names, *more], strict=False))


def _nodata(kept: Mapping[int, Value], masks: Masks, named: ClassOptions) -> list[Value]:
    """Return the nodata values of the files, which are ignored; none where the names include them,
    or where they must be a class, as there is only one other value."""
    found = [value for code, value in kept.items() if code in masks.nodata]
    without_255 = len(kept) - (IGNORE in kept and not masks.in_colour)
    is_class = len(named.names) in (len(kept), without_255) or len(kept) - len(found) < 2
    return [] if is_class else found


def _void(kept: Mapping[int, Value], in_colour: bool) -> Value | None:
    """Return the value to ignore: VOC's colour of borders, or 255 in masks of class indices."""
    void = next((value for value in kept.values() if value.key == void_key(in_colour)), None)
    others = [code for code in kept if code != IGNORE]
    # {0, 255} is one class and another, {0, 64, 128, 255} are grey levels; indices are close.
    are_close = any(b - a < 10 for a, b in pairwise(others))
    return void if in_colour or are_close else None


def _nearest(code: int, of: Mapping[int, int], in_colour: bool) -> int:
    """Return the nearest code that has a class, in values or in RGB."""
    here = colour_of(code) if in_colour else (code,)

    def distance(known: int) -> int:
        there = colour_of(known) if in_colour else (known,)
        return sum((a - b) ** 2 for a, b in zip(here, there, strict=True))

    return min(of.keys() - {CLEAR}, key=distance)


def _some(values: Iterable[Value]) -> str:
    """Return values as a message names them."""
    keys = [value.key for value in values]
    return f"{counted(len(keys), 'value')}: {join_first(keys, 8, '; ')}"
