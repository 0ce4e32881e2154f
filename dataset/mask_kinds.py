"""Detect masks whose values or palette colours contradict each other."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dataset.file_content import Content
from dataset.mask_files import (
    GREY_STEP,
    LabelLookup,
    has_values,
    is_deep_mask,
    key_of,
    packed,
    palette_codes,
)
from util.colours import palette
from util.errors import join_first


class Agreement(NamedTuple):
    """Readings that give masks of several kinds the same classes."""

    by_value: bool
    by_colour: bool


def mask_kind(mask: Content) -> str:
    """Return the mode of a mask, and its bits where Pillow's mode hides them."""
    return f"{mask.mode} of {mask.grey_bits} bits" if mask.grey_bits in (2, 4) else mask.mode


def value_colours(mask: Content, values: Iterable[int]) -> dict[int, int]:
    """Return the displayed colours of the values of a mask of one channel; masks may share them.

    Empty for values of 16 bits that are neither grey values of 8 bits nor these times 257.
    """
    if isinstance(mask.pixels, Image.Image) and mask.mode == "P":
        return _by_value(tuple(palette_codes(mask.pixels).tolist()))
    if is_deep_mask(mask):
        held = np.array([*values], np.int64)
        step = 257 if held.max(initial=0) > 255 else 1
        return {} if (held % step).any() else {v: v // step * GREY_STEP for v in held.tolist()}
    step = 255 // (2**mask.grey_bits - 1) * GREY_STEP
    return _by_value(tuple(range(0, 2**mask.grey_bits * step, step)))


@lru_cache
def _by_value(colours: tuple[int, ...]) -> dict[int, int]:
    return dict(enumerate(colours))


def agreement(kinds: Iterable[tuple[str, Mapping[int, int]]]) -> Agreement:
    """Compare values and colours across the kinds of masks; both agree where there is one kind.

    Masks can be read by value or by colour; the reading with fewer classes is correct: masks of 1
    bit agree with 0 and 255 by colour, with 0 and 1 by value. Neither agrees where the counts are
    equal and the classes differ.

    Args:
        kinds: by kind, the colours of the values in use; a kind may come several times.
    """
    by_value: dict[int, set[tuple[str, int]]] = {}
    by_colour: dict[int, set[tuple[str, int]]] = {}
    for kind, colours in kinds:
        if len(colours) > 1 and len(set(colours.values())) == 1:
            continue  # a palette of one colour says nothing
        for value, colour in colours.items():
            by_value.setdefault(value, set()).add((kind, value))
            by_colour.setdefault(colour, set()).add((kind, value))
    groups = [{frozenset(group) for group in found.values()} for found in (by_value, by_colour)]
    if groups[0] == groups[1]:
        return Agreement(True, True)
    counts = len(by_value), len(by_colour)
    return Agreement(counts[0] < counts[1], counts[1] < counts[0])


class MaskFormat(NamedTuple):
    """A mask file and how it stores its values."""

    path: Path
    kind: str
    colours: dict[int, int]
    """Colours of the values in use."""
    classes: dict[int, int]
    """Class indices of these values."""


def mask_format(
    mask: Content, values: Iterable[int], path: Path, labels: LabelLookup
) -> MaskFormat:
    """Describe a mask by the `values` in use; a mask in colour, or with the palette that this
    program chose for a config without one, gets no colours."""
    used, kind = [*values], mask_kind(mask)
    colours = value_colours(mask, used) if has_values(mask) else {}
    colours = {v: colours[v] for v in used if v in colours}
    indices = labels.class_of(np.array([*colours], np.int64)).tolist()
    classes = dict(zip(colours, indices, strict=True))
    has_no_palette = labels.data.palette is None
    if kind == "P" and has_no_palette and _has_default_palette(colours, classes, labels):
        colours = {}
    return MaskFormat(path, kind, colours, classes)


def _has_default_palette(
    colours: Mapping[int, int], classes: Mapping[int, int], labels: LabelLookup
) -> bool:
    """Return True if each value of a class has the colour that this program gives the class."""
    by_class = packed(np.array(palette(labels.data), np.uint8)).tolist()
    pairs = [(classes[value], colour) for value, colour in colours.items()]
    return all(index >= len(by_class) or by_class[index] == colour for index, colour in pairs)


def disagreement(masks: Iterable[MaskFormat]) -> str:
    """Describe masks of several kinds whose values, read as class indices, disagree while their
    colours agree, or whose palettes number the same colours differently; "" where the values
    agree."""
    found = [mask for mask in masks if mask.colours]
    if text := _renumbered(mask for mask in found if mask.kind == "P"):
        return text
    agrees = agreement((mask.kind, mask.colours) for mask in found)
    if agrees.by_value or not agrees.by_colour or _is_one_class_each(found):
        return ""
    first = {mask.kind: mask for mask in reversed(found)}
    examples = [f"{m.path} (mode {m.kind}: {join_first([*map(str, m.colours)], 4)})"
                for m in first.values()]  # fmt: skip
    return (
        f"{join_first(examples, 3)}: one value means different colours. Fix: save all masks in one "
        "way, or name the colours in data.label_map, such as '255,255,255': 1"
    )


def _is_one_class_each(masks: Iterable[MaskFormat]) -> bool:
    """Return True if each colour means one class, as with a label_map `{0: 0, 1: 1, 255: 1}`."""
    labels: dict[int, set[int]] = {}
    for mask in masks:
        for value, colour in mask.colours.items():
            labels.setdefault(colour, set()).add(mask.classes[value])
    return all(len(indices) == 1 for indices in labels.values())


def _renumbered(masks: Iterable[MaskFormat]) -> str:
    """Describe two palette masks where a value has two colours, one of which has another value too,
    as programs write that number the colours of each image anew; "" for none."""
    by_value: dict[int, dict[int, MaskFormat]] = {}
    by_colour: dict[int, set[int]] = {}
    for mask in masks:
        if len(set(mask.colours.values())) < len(mask.colours):
            continue  # its palette shows several values in one colour
        for value, colour in mask.colours.items():
            by_value.setdefault(value, {}).setdefault(colour, mask)
            by_colour.setdefault(colour, set()).add(value)
    for value, found in by_value.items():
        if len(found) > 1 and any(len(by_colour[colour]) > 1 for colour in found):
            (one, first), (other, second), *_ = found.items()
            return (
                f"{second.path}: the palette gives value {value} the colour {key_of(other, True)}, "
                f"that of {first.path} {key_of(one, True)}. Fix: save all masks with one palette, "
                "or name the colours in data.label_map, such as '128,0,0': 1"
            )
    return ""
