"""Classes of values or colours in masks, as `--classes` and `--ignore` name them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from dataset.mask_files import CLEAR, code_of, colour_of
from tools.prepare.own.masks import Masks, Value
from util.colours import Colour
from util.config.label_map import OTHER, WORDS, parse_key
from util.config.types import IGNORE
from util.errors import UserError, counted, join_first

MAX_CLASSES = 254
MAX_NEAREST = 1000
"""Lines of a label_map that a person can still read."""
RARE_CLASS_SHARE = 0.02
"""Share of the pixels below which class weights are proposed."""
IGNORED, NEAREST = "ignore", "nearest"


class ClassOptions(NamedTuple):
    """The meaning of `--classes` and `--ignore`."""

    names: list[str]
    """Class names; in the order of the values, where no key is named."""
    labels: dict[str, str]
    """A name, `ignore` or `nearest`, by value, colour or `other`."""

    def colours(self) -> bool | None:
        """Return True if the user names colours, False for values, None for neither or both."""
        kinds = {"," in key for key in self.labels if key not in WORDS}
        return kinds.pop() if len(kinds) == 1 else None


def parse_classes(text: str | None, ignored: Sequence[str]) -> ClassOptions:
    """Parse `a,b,c`, or `0=a,255=b` or `255,0,0=a,0,0,0=b,other=ignore`: several may share a name.

    Raises `UserError` for anything else.
    """
    labels = dict.fromkeys(map(_key, ignored), IGNORED)
    names = [name.strip() for name in text.split(",")] if text is not None else []
    if text and "=" in text:
        entry = r"\s*(\d+(?:\s*,\s*\d+\s*,\s*\d+)?|other|transparent)\s*=([^,=]+)(?:,|$)"
        pairs = [(_key(key), name.strip()) for key, name in re.findall(entry, text)]
        is_wrong = any(name == NEAREST and key != OTHER for key, name in pairs)
        if is_wrong or not re.fullmatch(f"(?:{entry})+", text):
            raise UserError(
                f"--classes {text}: expected VALUE=NAME or R,G,B=NAME, separated by commas; also "
                "other=NAME, other=ignore, other=nearest"
            )
        for key, name in pairs:
            if labels.setdefault(key, name) != name:
                raise UserError(
                    f"--classes, --ignore: {key} is both {labels[key]} and {name}; expected one"
                )
        names = class_names(labels)
    if {"", NEAREST} & {*names} or len(set(names)) < len(names) or len(names) > MAX_CLASSES:
        raise UserError(
            f"--classes {text}: expected distinct names, separated by commas, at most {MAX_CLASSES}"
        )
    return ClassOptions(names, labels)


def _key(text: str) -> str:
    try:
        return parse_key(text)
    except ValueError as error:
        raise UserError(f"--classes, --ignore: {error}") from None


def class_names(labels: Mapping[str, str]) -> list[str]:
    """Return the classes, in the order in which they are named."""
    return list(dict.fromkeys(v for v in labels.values() if v not in (IGNORED, NEAREST)))


class Classes(NamedTuple):
    """The config's classes; values and colours by their keys of data.label_map."""

    names: list[str]
    palette: list[Colour] | None
    labels: dict[str, str]
    """A name, `ignore` or `nearest` by value or colour, as `--classes` writes them."""
    indices: dict[str, int]
    """The class, or 255, of each value or colour; without a label, that of the nearest one."""
    other: int | None
    """The class of values that `indices` lacks; None: an error."""
    is_mapped: bool
    """True if values are not class indices: the config needs a label_map."""
    shares: list[float]
    """Share of the masks' pixels of each class."""
    masks: list[set[int]]
    """Positions of the masks that show each class."""

    def rare(self) -> dict[str, float]:
        """Return the share of each class with less than `RARE_CLASS_SHARE` of the pixels."""
        shares = zip(self.names, self.shares, strict=True)
        return {name: share for name, share in shares if share < RARE_CLASS_SHARE}


def make_classes(masks: Masks, labels: dict[str, str]) -> Classes:
    """Return the classes of the values or colours in masks by their `labels`.

    Raises `UserError` for fewer than 2 classes or more than 254.
    """
    names = class_names(labels)
    _refuse_number(len(names), masks)
    index = {name: number for number, name in enumerate(names)} | {IGNORED: IGNORE}
    indices = {key: index[label] for key, label in labels.items() if key != OTHER}
    other = index.get(labels.get(OTHER, ""))
    is_mapped = masks.in_colour or OTHER in labels or any(k != str(v) for k, v in indices.items())
    palette = _palette(masks, indices, len(names))
    if labels.get(OTHER) == NEAREST:
        indices |= _nearest(masks, indices)
    shares = [0.0] * len(names)
    shown: list[set[int]] = [set() for _ in names]
    for key, value in masks.values.items():
        if (label := indices.get(key, other)) not in (None, IGNORE):
            shares[label] += value.share
            shown[label].update(value.masks)
    return Classes(names, palette, labels, indices, other, is_mapped, shares, shown)


def _refuse_number(count: int, masks: Masks) -> None:
    if 2 <= count <= MAX_CLASSES:
        return
    fix = ""
    if masks.values.keys() <= {"0", "0,0,0"}:
        fix = ". Fix: all masks hold only the value 0: export them again"
    elif count < 2:
        fix = ". Fix: name classes that the masks lack in --classes, or export the masks again"
    raise UserError(
        f"--masks: found {describe_values(masks.values.values())}, which makes "
        f"{counted(count, 'class', 'classes')}; expected 2 to {MAX_CLASSES}{fix}"
    )


def _palette(masks: Masks, indices: dict[str, int], count: int) -> list[Colour] | None:
    """Return the colour of each of `count` classes in the masks; None where all are grey, or two
    are equal."""
    first = {label: code_of(key) for key, label in reversed(indices.items())}
    codes = [first[label] for label in range(count) if label in first]
    in_colour = codes if masks.in_colour else [masks.palette.get(code, -1) for code in codes]
    colours = [colour_of(code) for code in in_colour if code != -1]
    is_grey = all(len(set(colour)) == 1 for colour in colours)  # values, not chosen colours
    return colours if len(set(colours)) == count and not is_grey else None


def _nearest(masks: Masks, indices: Mapping[str, int]) -> dict[str, int]:
    """Return the class of the nearest value, or colour in RGB, for each value without a class."""
    known = {code_of(key): label for key, label in indices.items()}
    found = [value for key, value in masks.values.items() if key not in indices]
    if len(found) > MAX_NEAREST:
        raise UserError(
            f"--classes: other=nearest would make a label_map of {len(found)} lines; expected "
            f"{MAX_NEAREST} at most. Fix: replace other=nearest by other=ignore"
        )
    place = colour_of if masks.in_colour else lambda code: (code,)

    def distance(one: int, other: int) -> int:
        return sum((a - b) ** 2 for a, b in zip(place(one), place(other), strict=True))

    codes = sorted(known.keys() - {CLEAR})
    return {v.key: known[min(codes, key=lambda code: distance(code, v.code))] for v in found}


def describe_values(values: Iterable[Value]) -> str:
    """Return values as a message names them."""
    keys = [value.key for value in values]
    return f"{counted(len(keys), 'value')}: {join_first(keys, 8, '; ')}"
