"""Libraries of requirements-extra.txt."""

import importlib
import importlib.util
from types import ModuleType

from util.errors import UserError


def import_optional(name: str, user: str) -> ModuleType:
    """Import a library; raises `UserError` that `user` needs it, where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise _missing(user, name) from None


def require_optional(user: str, *names: str) -> None:
    """Raise the same error where libraries are missing; import none, as that can take seconds."""
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        raise _missing(user, ", ".join(missing))


def _missing(user: str, names: str) -> UserError:
    return UserError(f"{user} needs {names}. Fix: pip install -r requirements-extra.txt")
