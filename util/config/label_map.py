"""`data.label_map` of a config: mask value or colour -> class."""

import difflib
from typing import Any

from util.config.types import IGNORE
from util.errors import join_first
from util.parser import did_you_mean

OTHER = "other"
"""Key for the class of all other values."""
TRANSPARENT = "transparent"
"""Key for the class of fully transparent pixels."""
WORDS = (OTHER, TRANSPARENT)
QUOTES = (
    "put it in quotes, as YAML reads yes, no, on and off as true or false, and digits as numbers"
)
MAX_VALUE = 65535
"""The largest mask value: 16 bits."""
UNKNOWN = 254
"""Index of values without a class; classes have 0 to 253."""


def parse_label_map(found: dict[Any, Any], classes: list[str]) -> dict[str, int]:
    """Return class indices, or 255 (ignore), by "7", "128,0,0", "other" or "transparent".

    Raises `ValueError` for an invalid key or class, and for values mixed with colours.
    """
    pairs = [(parse_key(key), _class_index(label, classes)) for key, label in found.items()]
    keys = [key for key, _ in pairs]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise ValueError(f"'{twice[0]}' occurs twice")
    if len({"," in key for key in keys if key not in WORDS}) > 1:
        raise ValueError("expected mask values or colours, found both")
    return dict(pairs)


def parse_key(key: Any) -> str:
    """Normalise a key; raises `ValueError` unless it is a value, colour or word."""
    if key in WORDS:
        return str(key)
    parts = [part.strip() for part in str(key).split(",")]
    limit = {1: MAX_VALUE, 3: 255}.get(len(parts), -1)
    if all(part.isdecimal() and int(part) <= limit for part in parts):
        return ",".join(str(int(part)) for part in parts)
    raise ValueError(
        f"'{key}' is neither a mask value (0 to {MAX_VALUE}), a colour ('128,0,0'), '{OTHER}' nor "
        f"'{TRANSPARENT}'"
    )


def _class_index(label: Any, classes: list[str]) -> int:
    if label in classes:
        return classes.index(label)
    if label == "ignore" or str(label) == str(IGNORE):
        return IGNORE
    if str(label).isdecimal() and int(label) < len(classes):
        return int(label)
    if isinstance(label, bool) or str(label) in classes:
        raise ValueError(f"'{label}' is not a class. Fix: {QUOTES}")
    near = difflib.get_close_matches(str(label), classes, n=1, cutoff=0.5)
    raise ValueError(
        f"'{label}' is not a class; expected one of {join_first(classes, 10)} (or its index), or "
        f"ignore{did_you_mean(near)}"
    )
