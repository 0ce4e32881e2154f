"""Libraries of requirements-extra.txt."""

import importlib
from types import ModuleType

from util.errors import UserError


def import_optional(name: str, user: str) -> ModuleType:
    """Import a library; raises `UserError` that `user` needs it, where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(
            f"{user} needs {name}. Fix: pip install -r requirements-extra.txt"
        ) from None
