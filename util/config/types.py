"""Types of the values of a config."""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

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


def _possible(path: Path) -> Path:
    if b"\0" in os.fsencode(path):  # raises ValueError for invalid characters
        raise ValueError("a path cannot hold a zero byte")
    return expand_home(path)


Name = Annotated[str, AfterValidator(_printable)]
AnyPath = Annotated[Path, AfterValidator(_possible)]


class Section(BaseModel):
    """Base class of config sections: frozen; rejects unknown keys, NaN and infinity."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),  # keys may begin with "model_"
    )


UNION_TAGS = ("<one>", "<several>", "<folders>", "<file>", "<path>", "<word>", "<numbers>")
"""Tags of the forms that a value may have; no key of a config looks like them."""


def word_or_numbers(value: Any) -> str:
    return "<numbers>" if isinstance(value, list | tuple) else "<word>"
