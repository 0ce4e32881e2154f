"""Libraries of requirements-extra.txt."""

import importlib
from types import ModuleType

from util.errors import UserError


def optional(name: str, why: str) -> ModuleType:
    """Import a library; raises `UserError` that `why` needs it, where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(
            f"{why}: needs {name}. Fix: pip install -r requirements-extra.txt"
        ) from None
