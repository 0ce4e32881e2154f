"""The methods by the names of their scripts, for commands that run several of them."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from engine.scripts import CLASSES
from util.errors import UserError
from util.parser import did_you_mean

if TYPE_CHECKING:
    from engine.method import Method


def method_of(script: str) -> type[Method]:
    """Return the method of a script, named without .py; raises `UserError` for an unknown one."""
    require_method(script)
    return getattr(import_module(script), CLASSES[script])


def require_method(script: str) -> None:
    """Raise `UserError` for a name that is not the script of a method, without .py."""
    if script not in CLASSES:
        hint = did_you_mean(get_close_matches(script, CLASSES, n=1))
        raise UserError(
            f"method {script}: no such method; expected one of {', '.join(CLASSES)}{hint}"
        )


def methods_of(path: Path, wanted: list[str]) -> list[str]:
    """Return the scripts to use with a config: the `wanted` ones; for `all`, the one in the file's
    name, or else all without a config of their own in the same folder."""
    if wanted != ["all"]:
        return wanted
    own = [name for name in CLASSES if path.stem.endswith(f"_{name}")]
    beside = [name for name in CLASSES if path.with_stem(f"{path.stem}_{name}").exists()]
    return own or [name for name in CLASSES if name not in beside]
