"""Entries of JSON files; errors name file and key of a missing or wrong value."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from util.errors import UserError, reason

NUMBER = (int, float)
KINDS = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


class Entry:
    """A value in a JSON file, and where it is."""

    def __init__(self, value: Any, path: Path, where: str = ""):
        self.value = value
        self.path = path
        self.where = where

    def error(self, problem: str, key: str = "") -> UserError:
        where = f"{self.where}.{key}" if self.where and key else self.where or key
        return UserError(f"{self.path}: {where}: {problem}" if where else f"{self.path}: {problem}")

    def get(self, key: str, *kinds: type, default: Any = ...) -> Any:
        """Return the value of a key; `default` where it is missing or null.

        Raises `UserError` for a missing key without default, and for a value of another kind.
        """
        expected = f"expected {' or '.join(KINDS[kind] for kind in kinds)}"
        if not isinstance(self.value, dict):
            raise self.error(f"found {_short(self.value)}; expected an object with '{key}'")
        found = self.value.get(key)
        if found is None:
            if default is ...:
                raise self.error(f"missing; {expected}", key)
            return default
        if not isinstance(found, kinds) or (isinstance(found, bool) and bool not in kinds):
            raise self.error(f"found {_short(found)}; {expected}", key)
        return found

    def number(self, key: str, default: Any = ...) -> float:
        return self.get(key, *NUMBER, default=default)

    def size(self, width: str, height: str) -> tuple[int, int]:
        """Return width and height by their keys."""
        for key in (width, height):
            if self.get(key, int) <= 0:
                raise self.error(f"found {self.get(key, int)}; expected at least 1", key)
        return self.get(width, int), self.get(height, int)

    def entries(self, key: str, default: Any = ...) -> Iterator["Entry"]:
        """Yield the entries of a list, or the values of an object."""
        found = self.get(key, list, dict, default=default)
        pairs = found.items() if isinstance(found, dict) else enumerate(found)
        before = f"{self.where}." if self.where else ""
        for number, value in pairs:
            yield Entry(value, self.path, f"{before}{key}[{number}]")

    def points(self, key: str) -> list[tuple[float, float]]:
        """Return a list of x and y; raises `UserError` for anything else."""
        found = self.get(key, list)
        for point in found:
            if not (isinstance(point, list) and len(point) == 2
                    and all(isinstance(v, int | float) for v in point)):  # fmt: skip
                raise self.error(f"found {_short(point)}; expected x and y", key)
        return [(x, y) for x, y in found]

    def entry(self, key: str) -> "Entry":
        """Return an object by its key; an empty one where it is missing."""
        return Entry(self.get(key, dict, default={}), self.path,
                     f"{self.where}.{key}" if self.where else key)  # fmt: skip


def read_json(path: Path) -> Entry:
    """Read a JSON file; raises `UserError` for any other."""
    text = read_text(path)
    try:
        return Entry(json.loads(text), path)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({reason(error)}); export it again") from None


def read_text(path: Path) -> str:
    """Read a text; raises `UserError` for a file that cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8; save it in this encoding") from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
