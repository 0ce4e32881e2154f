"""The methods by the names of their scripts, for commands that run several of them."""

from importlib import import_module

from engine.method import Method
from util.errors import UserError

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
    if script not in CLASSES:
        raise UserError(f"method {script}: no such method; expected one of {', '.join(CLASSES)}")
    return getattr(import_module(script), CLASSES[script])


def method_scripts() -> list[str]:
    """Return the names of all methods' scripts, without .py."""
    return list(CLASSES)
