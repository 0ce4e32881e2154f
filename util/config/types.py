"""Types of the values of a config."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from util.paths import expand_home

IGNORE = 255
"""Ignore index: the mask value of pixels without a label, everywhere."""

Positive = Annotated[int, Field(gt=0, lt=2**31)]
Natural = Annotated[int, Field(ge=0, lt=2**31)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
Deviation = Annotated[float, Field(gt=0, le=1)]
Shade = Annotated[int, Field(ge=0, le=255)]
Dilation = Annotated[int, Field(gt=0, le=1024)]
Width = Annotated[int, Field(gt=0, le=4096)]


def _printable(name: str) -> str:
    if not name.strip() or not name.isprintable():
        raise ValueError("expected a name of printable characters")
    return name


def _not_empty(path: Any) -> Any:
    if path == "":  # else the working directory
        raise ValueError("expected a path; '.' is the working directory")
    return path


def _possible(path: Path) -> Path:
    if b"\0" in os.fsencode(path):  # raises ValueError for invalid characters
        raise ValueError("a path cannot hold a zero byte")
    return expand_home(path)


Name = Annotated[str, AfterValidator(_printable)]
AnyPath = Annotated[Path, BeforeValidator(_not_empty), AfterValidator(_possible)]


class Section(BaseModel):
    """Base class of config sections: frozen; rejects unknown keys, NaN, infinity, and true and
    false as numbers."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),  # keys may begin with "model_"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        if _holds_bool(value):
            types = [*_types_in(cls.model_fields[str(info.field_name)].annotation)]
            if (int in types or float in types) and bool not in types:
                raise ValueError("expected a number, not true or false (yes, no, on, off)")
        return value


def _holds_bool(value: Any, levels: int = 2) -> bool:
    """Return True if a value, or a list in it down to `levels` levels, holds a bool."""
    if levels and isinstance(value, list | tuple):
        return any(_holds_bool(part, levels - 1) for part in value)
    return isinstance(value, bool)


def _types_in(annotation: Any) -> Iterator[Any]:
    """Yield the parts of an annotation such as `tuple[float, ...] | None`."""
    yield annotation
    for part in get_args(annotation):
        yield from _types_in(part)


UNION_TAGS = ("<one>", "<several>", "<folders>", "<file>", "<path>", "<word>", "<numbers>")
"""Tags of the forms that a value may have; no key of a config looks like them."""


def word_or_numbers(value: Any) -> str:
    return "<numbers>" if isinstance(value, list | tuple) else "<word>"
