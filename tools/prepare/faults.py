"""Faults of many files: all are found before the first one ends the command."""

from collections.abc import Sequence
from typing import TypeVar

from util.errors import UserError

R = TypeVar("R")


def require_results(found: Sequence[R | UserError]) -> list[R]:
    """Return the results; raises `UserError` as `raise_all_faults` where some are faults."""
    raise_all_faults([one for one in found if isinstance(one, UserError)])
    return [one for one in found if not isinstance(one, UserError)]


def raise_all_faults(
    faults: Sequence[UserError],
    what: str = "annotations",
    fix: str = "correct or remove bad annotations",
    command: str = "",
) -> None:
    """Raise the only fault, or print all faults and raise their number; with a fix. `command` is
    printed before."""
    if len(faults) > 1:
        print(*faults, sep="\n")
    if faults and command:
        print(f"command  {command}")
    if len(faults) > 1:
        raise UserError(f"{len(faults)} {what} cannot be used, see above. Fix: {fix}")
    if faults and command and "Fix: " in str(faults[0]):
        raise UserError(f"{faults[0]}; or {fix}")
    if faults:
        raise with_fix(faults[0], fix)


def with_fix(error: UserError, fix: str) -> UserError:
    """Return an error that ends with this fix, or the error itself if it has one."""
    text = str(error)
    end = "" if text.endswith("?") else "."
    return error if "Fix: " in text else UserError(f"{text}{end} Fix: {fix}")
