"""From the values or colours in use to classes: as they are named, else a guess if it is safe."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from dataset.mask_files import CLEAR, code_of, colour_of
from tools.prepare.own.mask_values import Value, objects, strays, two_scales, void_key
from tools.prepare.own.survey import Masks
from util.config.label_map import OTHER, TRANSPARENT, WORDS, parse_key
from util.config.types import IGNORE
from util.errors import UserError, first_of

CHANGES = ["unchanged", "changed"]
"""Classes of image pairs, unless `--classes` names others."""
MAX_CLASSES = 254
MUCH = 0.1
"""Share of the pixels above which a value is not ignored without asking."""
MAX_NEAREST = 1000
"""Lines of a label_map that a person can still read."""
IGNORED, NEAREST = "ignore", "nearest"
Colour = tuple[int, int, int]


class Classes(NamedTuple):
    """The config's classes."""

    names: list[str]
    palette: list[Colour] | None
    of: dict[int, int]
    """The class, or 255, of each value or colour (as a code of dataset.mask_files)."""
    other: int | None
    """The class of values that `of` lacks; None: an error."""
    nearest: set[int]
    """The codes that take the class of the nearest one with a class of its own."""
    labels: dict[str, str]
    """The classes as `--classes` writes them."""
    in_colour: bool
    mapped: bool
    """True where values are not just indices: the config needs a label_map."""


class Named(NamedTuple):
    """The meaning of `--classes` and `--ignore`."""

    names: list[str]
    """Class names; in the order of the values, where no key is named."""
    labels: dict[str, str]
    """A name, `ignore` or `nearest`, by value, colour or `other`."""
    of_change: bool = False
    """Classes of change, of image pairs."""


class Doubt(UserError):
    """A question that masks leave open; `labels` holds a possible answer."""

    def __init__(self, message: str, labels: Mapping[str, str]):
        super().__init__(message)
        self.labels = labels


def parse_classes(text: str | None, ignored: Sequence[str]) -> Named:
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
        labels |= {_key(key): name.strip() for key, name in re.findall(entry, text)}
        names = _names(labels)
    if "" in names or len(set(names)) < len(names) or len(names) > MAX_CLASSES:
        raise UserError(
            f"--classes {text}: expected distinct names, separated by commas, at most {MAX_CLASSES}"
        )
    return Named(names, labels)


def _key(text: str) -> str:
    try:
        return parse_key(text)
    except ValueError as error:
        raise UserError(f"--classes, --ignore: {error}") from None


def _names(labels: Mapping[str, str]) -> list[str]:
    """Return the classes, in the order in which they are named."""
    return list(dict.fromkeys(v for v in labels.values() if v not in (IGNORED, NEAREST)))


def choose_classes(masks: Masks, values: Mapping[int, Value], named: Named) -> Classes:
    """Choose a class for each value or colour.

    Raises `Doubt` where a guess would be a gamble, and `UserError` for names that do not fit the
    masks, and for fewer than 2 classes or more than 254.
    """
    for key in named.labels:
        if key not in WORDS and ("," in key) != masks.in_colour:
            what = "colours" if masks.in_colour else "values"
            raise UserError(f"{key}: the masks hold {what}; found {_some(values.values())}")
    labels = _as_named(values, named) if _names(named.labels) else _guess(masks, values, named)
    names = _names(labels)
    if not 2 <= len(names) <= MAX_CLASSES:
        raise UserError(
            f"--masks: found {_some(values.values())}, which come to {len(names)} classes; "
            f"expected 2 to {MAX_CLASSES}"
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
    first = {label: code for code, label in reversed(of.items())}
    codes = [first[label] for label in range(len(names)) if label in first]
    in_colour = codes if masks.in_colour else [masks.palette.get(code, -1) for code in codes]
    colours = [colour_of(code) for code in in_colour if code != -1]
    return Classes(
        names,
        colours if len(set(colours)) == len(names) else None,
        of | {code: of[_nearest(code, of, masks.in_colour)] for code in nearest},
        None if other in (None, NEAREST) else index.get(other),
        set(nearest),
        labels,
        masks.in_colour,
        mapped=masks.in_colour or other is not None or any(k != v for k, v in of.items()),
    )


def _as_named(values: Mapping[int, Value], named: Named) -> dict[str, str]:
    """Return the named meanings; raises `Doubt` for values without a meaning."""
    left = [v for v in values.values() if v.key not in named.labels]
    if any(value.key == TRANSPARENT for value in left) and named.labels.get(OTHER) == NEAREST:
        raise Doubt("--classes: says nothing of transparent pixels", _clear(named.labels))
    if left and OTHER not in named.labels:
        raise Doubt(
            f"--classes: says nothing of {_some(left)}",
            named.labels | {OTHER: NEAREST},
        )
    return dict(named.labels)


def _guess(masks: Masks, values: Mapping[int, Value], named: Named) -> dict[str, str]:
    """Guess the meaning of values; raises `Doubt` where a guess would be a gamble."""
    if how := objects(masks):
        raise UserError(
            f"--masks: one value per object, it seems, not per class ({how}); for a single class "
            'of objects say --classes "0=background,other=object"'
        )
    ignored = dict(named.labels)
    keys = {value.key for value in values.values()} | {OTHER}
    if missing := [key for key in ignored if key not in keys]:
        raise UserError(f"--ignore {missing[0]}: not in the masks; found {_some(values.values())}")
    clear = CLEAR in values and TRANSPARENT not in ignored
    kept = {code: v for code, v in values.items() if v.key not in ignored and code != CLEAR}
    odd = strays(kept, masks.in_colour, len(masks.pixels))
    if len(named.names) == len(kept) and not masks.in_colour:
        odd = set()  # each has a name
    kept = {code: value for code, value in kept.items() if code not in odd}
    void = _void(kept, masks.in_colour, named) if set(ignored) <= {OTHER} else None
    if void:
        ignored[void.key] = IGNORED
    classes = [value.key for value in kept.values() if value is not void]
    if named.of_change and not named.names:
        named = named._replace(names=_changes(classes))
    guess = dict(zip(*_with_names(classes, named.names, masks.in_colour), strict=True)) | ignored
    if clear:
        raise Doubt(
            f"--masks: {values[CLEAR].share:.1%} of the pixels are transparent: ignored, or a "
            "class?",
            _clear(guess),
        )
    if scales := two_scales(masks):
        small, large = scales
        names = [guess.get(str(value), f"class_{value}") for value in small]
        same = dict(zip(map(str, large), names, strict=True))
        raise Doubt(
            f"--masks: {'; '.join(map(str, small))} and {'; '.join(map(str, large))} are in no "
            "mask together: the same classes, stored in two ways?",
            {**{key: label for key, label in guess.items() if key not in same}, **same},
        )
    if odd and OTHER not in ignored:
        some = _some(value for code, value in values.items() if code in odd)
        guess[OTHER] = NEAREST if len(odd) <= MAX_NEAREST else IGNORED
        raise Doubt(f"--masks: hardly classes are {some}", guess)
    if void and void.share > MUCH:
        raise Doubt(
            f"--masks: {void.share:.0%} of the pixels are {void.key}: ignored, or a class?", guess
        )
    if masks.in_colour and named.names:
        raise Doubt("--classes: masks do not tell which of the colours is which class", guess)
    if named.names and len(guess.keys() - ignored.keys()) != len(named.names):
        found = _some(value for value in kept.values() if value is not void)
        raise Doubt(f"--classes: {len(named.names)} names for {found}", guess)
    return guess


def _changes(keys: list[str]) -> list[str]:
    """Return the default names of classes of change: value 0 of several is "unchanged"."""
    if len(keys) == len(CHANGES):
        return CHANGES
    return [CHANGES[0] if key == "0" else f"class_{key}" for key in keys] if "0" in keys else []


def _clear(labels: Mapping[str, str]) -> dict[str, str]:
    """Add transparent pixels: ignored, or the background where no class is black."""
    black = {"0", "0,0,0"} & labels.keys()
    return {**labels, TRANSPARENT: IGNORED if black else "background"}


def _with_names(keys: list[str], names: list[str], in_colour: bool) -> tuple[list[str], list[str]]:
    """Return the keys of classes and their names; of indices, names may outnumber values."""
    if not in_colour and all(int(key) < len(names) for key in keys):
        return [str(number) for number in range(len(names))], names
    rest = range(len(names), len(keys))
    more = [f"class_{number if in_colour else keys[number]}" for number in rest]
    return keys, [*names, *more][: len(keys)]


def _void(kept: Mapping[int, Value], in_colour: bool, named: Named) -> Value | None:
    """Return the value to ignore: VOC's colour of borders; 255 beside indices, or where there is
    one name less than values."""
    void = next((value for value in kept.values() if value.key == void_key(in_colour)), None)
    others = [code for code in kept if code != IGNORE]
    # {0, 255} is one class and another, {0, 64, 128, 255} are grey levels; indices are close.
    are_close = any(b - a < 10 for a, b in pairwise(others))
    return void if in_colour or are_close or len(named.names) == len(others) > 1 else None


def _nearest(code: int, of: Mapping[int, int], in_colour: bool) -> int:
    """Return the code with a meaning of its own that is nearest, in values or in RGB."""
    opaque = of.keys() - {CLEAR}
    if not in_colour:
        return min(opaque, key=lambda known: abs(known - code))
    here = colour_of(code)
    return min(
        opaque,
        key=lambda known: sum((a - b) ** 2 for a, b in zip(here, colour_of(known), strict=True)),
    )


def _some(values: Iterable[Value]) -> str:
    """Return values as a message names them."""
    keys = [value.key for value in values]
    return f"{len(keys)} values: {first_of(keys, 8, '; ')}"
