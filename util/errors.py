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
    return f" (and {counted(rest, 'other')})" if rest else ""


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: "1 image", "2 images"; `plural`: of an irregular noun."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """Return a time to wait in words: "under a minute", "12 min", "3 h 20 min", "2 d 5 h"."""
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min" if minutes else "under a minute"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h"


def shell_quoted(value: object) -> str:
    """Return a path with the quotes that a command line needs."""
    return shlex.quote(str(value))


def join_first(names: Sequence[str], limit: int, separator: str = ", ") -> str:
    """Join the first `limit` names, and count the rest."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{separator.join(names[:limit])}{more}"


def reason(error: Exception) -> str:
    """Return the text of a library's error, or else its class, on one line of at most 300
    characters: for use inside the message of a `UserError`, whose text is escaped when printed."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def one_line(error: Exception) -> str:
    """Return the whole text of an error, or else its class, on one line, with escapes for line
    breaks and for what is not printable: for a `UserError`, or an error that ends a command."""
    return printable(str(error).strip() or type(error).__name__)


def printable(text: str, keep: str = "") -> str:
    """Return `text` with escapes for characters that are not printable, except those in `keep`.

    Control characters in a file name could otherwise command a terminal.
    """
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
