"""Errors that the user can fix, and how messages are written."""

import shlex
import sys
from collections.abc import Sequence, Sized

USER_ERROR = 2
"""Exit code after a `UserError`."""


class UserError(ValueError):
    """An error that the user can fix, in one line: file, line or key; problem; expected; fix.

    Commands print it without a traceback and end with exit code 2.
    """


def and_others(faults: Sized) -> str:
    """Return " (and 2 others)" for three faults; "" for one."""
    rest = len(faults) - 1
    return f" (and {rest} other{'s' * (rest > 1)})" if rest else ""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 image", "2 images"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def duration(seconds: float) -> str:
    """Return a time to wait in words: "under a minute", "12 min", "3 h 20 min", "2 d 5 h"."""
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min" if minutes else "under a minute"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h"


def quoted(value: object) -> str:
    """Return a path as it is written in a command line."""
    return shlex.quote(str(value))


def first_of(names: Sequence[str], limit: int, separator: str = ", ") -> str:
    """Join the first `limit` names, and count the rest."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{separator.join(names[:limit])}{more}"


def reason(error: Exception) -> str:
    """Return the message of a library's error, or else its class, for use inside a message."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def one_line(error: Exception) -> str:
    """Return the message of an error as a single line, with escapes for what is not printable."""
    return printable(str(error).strip() or type(error).__name__)


def printable(text: str, keep: str = "") -> str:
    """Return `text` with escapes for what is not printable, such as the control characters with
    which a file name could command a terminal; those in `keep` stay."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in keep
        else character.encode("unicode_escape").decode()
        for character in text
    )


def print_error(text: str) -> None:
    """Print lines on standard error, see `printable`."""
    print(printable(text, keep="\n\t"), file=sys.stderr, flush=True)
