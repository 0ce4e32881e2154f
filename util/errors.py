"""The one kind of error that is the user's to mend."""


class UserError(ValueError):
    """One line: the file, line or key; what was found; what was expected; what to do.

    `main` prints it without a traceback and ends with exit code 2.
    """


def one_line(error: Exception) -> str:
    """The message of an error as a single line; a data worker wraps it into its own traceback,
    of which the last line is ours."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].removeprefix("util.errors.UserError: ")
