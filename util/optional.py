"""Libraries of requirements-extra.txt."""

import importlib
import importlib.util
from types import ModuleType

from util.errors import UserError, reason


def import_optional(name: str, user: str) -> ModuleType:
    """Import a library that `user` needs; raises `UserError` where it is missing or broken."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            raise _missing(user, name) from None
        raise UserError(
            f"{user}: {name} is installed but cannot be imported ({reason(error)})"
        ) from None


def require_optional(user: str, *names: str) -> None:
    """Raise the same error where libraries are missing; import none, as that can take seconds."""
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        raise _missing(user, ", ".join(missing))


def _missing(user: str, names: str) -> UserError:
    return UserError(f"{user} needs {names}. Fix: pip install -r requirements-extra.txt")
