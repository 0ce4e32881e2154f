"""JSON and text files; errors name the file and the key of a missing or wrong value."""

import json
import reprlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError

from util.errors import UserError, reason

Id = Annotated[int | str, Field(union_mode="left_to_right")]
Side = Annotated[int, Field(gt=0)]
"""Width or height."""
Point = Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)]
"""x and y."""
_adapter = cache(TypeAdapter)


class JsonEntry:
    """A value in a JSON file, and where it is."""

    def __init__(self, value: Any, path: Path, where: str = ""):
        self.value = value
        self.path = path
        self.where = where

    def place(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where and key else self.where or key

    def error(self, problem: str, key: str = "") -> UserError:
        return UserError(": ".join(filter(None, (str(self.path), self.place(key), problem))))

    def get(self, key: str, kind: Any, default: Any = ...) -> Any:
        """Return the value of a key; `default` where it is missing or null.

        Raises `UserError` for a missing key without default, and for another type than `kind`.
        """
        found = self._object().get(key)
        if found is None and default is not ...:
            return default
        if found is None:
            raise self.error("missing", key)
        try:
            return _adapter(kind).validate_python(found, strict=True)
        except ValidationError as error:
            fault = error.errors()[0]
        place = "".join(f"[{part}]" for part in fault["loc"] if isinstance(part, int))
        expected = fault["msg"].replace("Input should be", "expected")
        raise self.error(f"found {reprlib.repr(fault['input'])}; {expected}", key + place)

    def size(self, width: str, height: str) -> tuple[int, int] | None:
        """Return width and height by their keys; None where both are missing or 0."""
        if not (self._object().get(width) or self._object().get(height)):
            return None
        return self.get(width, Side), self.get(height, Side)

    def entries(self, key: str) -> Iterator["JsonEntry"]:
        """Yield the entries of a list, or the values of an object."""
        found = self._object().get(key)
        if not isinstance(found, list | dict):
            raise self.error(f"found {reprlib.repr(found)}; expected a list", key)
        for part, value in found.items() if isinstance(found, dict) else enumerate(found):
            yield JsonEntry(value, self.path, f"{self.place(key)}[{part}]")

    def entry(self, key: str) -> "JsonEntry":
        """Return an object by its key; an empty one where it is missing."""
        return JsonEntry(self.get(key, dict, default={}), self.path, self.place(key))

    def _object(self) -> dict[str, Any]:
        if not isinstance(self.value, dict):
            raise self.error(f"found {reprlib.repr(self.value)}; expected an object")
        return self.value


def read_json(path: Path) -> JsonEntry:
    """Read a JSON file; raises `UserError` for any other."""
    text = read_text(path)
    try:
        return JsonEntry(json.loads(text), path)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({reason(error)}). Fix: export it again") from None


def read_text(path: Path) -> str:
    """Read a text; raises `UserError` for a file that cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8. Fix: save it as UTF-8") from None


def names_in(path: Path) -> list[str]:
    """Return the lines of a text file that are not empty."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]
