"""The methods by the names of their scripts, for commands that run several of them."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from util.errors import UserError
from util.parser import did_you_mean

if TYPE_CHECKING:
    from engine.method import Method

CLASSES = {
    "corrmatch": "CorrMatch",
    "fixmatch": "FixMatch",
    "prevmatch": "PrevMatch",
    "rankmatch": "RankMatch",
    "supervised": "SupOnly",
    "unimatch": "UniMatch",
    "unimatch_v2": "UniMatchV2",
}
"""The class in each method's script, named without .py."""


def method_of(script: str) -> type[Method]:
    """Return the method of a script, named without .py; raises `UserError` where there is none."""
    require_method(script)
    return getattr(import_module(script), CLASSES[script])


def require_method(script: str) -> None:
    """Raise `UserError` for what is no method's script, named without .py."""
    if script not in CLASSES:
        hint = did_you_mean(get_close_matches(script, CLASSES, n=1))
        raise UserError(
            f"method {script}: no such method; expected one of {', '.join(CLASSES)}{hint}"
        )


def method_scripts() -> list[str]:
    """Return the names of all methods' scripts, without .py."""
    return list(CLASSES)


def methods_of(path: Path, wanted: list[str]) -> list[str]:
    """Return the scripts that a config is for: those that are wanted, or with `all` the one in its
    name, or all that have no config of their own beside it."""
    if wanted != ["all"]:
        return wanted
    names = method_scripts()
    own = [name for name in names if path.stem.endswith(f"_{name}")]
    beside = [name for name in names if path.with_stem(f"{path.stem}_{name}").exists()]
    return own or [name for name in names if name not in beside]
