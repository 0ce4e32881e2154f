"""The one kind of error that is the user's to mend."""

from collections.abc import Sequence, Sized


class UserError(ValueError):
    """One line: the file, line or key; what was found; what was expected; what to do.

    `main` prints it without a traceback and ends with exit code 2.
    """


def and_others(faults: Sized) -> str:
    """What follows the first of several in a message, as " (and 2 others)"; of one, nothing."""
    rest = len(faults) - 1
    return f" (and {rest} other{'s' * (rest > 1)})" if rest else ""


def first_of(names: Sequence[str], limit: int, separator: str = ", ") -> str:
    """The first `limit` names in a message, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{separator.join(names[:limit])}{more}"


def one_line(error: Exception) -> str:
    """The message of an error as a single line, with escapes for what is not printable.

    A data worker wraps it into its own traceback, at the end of which stands ours.
    """
    message = str(error).rpartition("\nutil.errors.UserError: ")[2].strip()
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in message or type(error).__name__
    )
