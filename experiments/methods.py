"""The methods by the names of their scripts, for all that runs several of them."""

from importlib import import_module
from pathlib import Path

from engine.method import Method
from util.errors import UserError

SCRIPTS = Path(__file__).resolve().parents[1]
"""The folder of the methods' scripts."""


def method_of(script: str) -> type[Method]:
    """The method in a script, named without .py; raises `UserError` where there is none."""
    if script not in (known := method_scripts()):
        raise UserError(f"method {script}: no such method; expected one of {', '.join(known)}")
    found = vars(import_module(script)).values()
    return next(
        value
        for value in found
        if isinstance(value, type) and issubclass(value, Method) and value.__module__ == script
    )


def method_scripts() -> list[str]:
    """Names of all methods' scripts, without .py: each of them ends in main(Method)."""
    texts = {path.stem: path.read_text() for path in sorted(SCRIPTS.glob("*.py"))}
    return [name for name, text in texts.items() if "(Method):" in text]
