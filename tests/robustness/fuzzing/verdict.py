"""Verdict on a command with bad input: it ran, or it refused the input in one line."""

import io
import os
import runpy
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from unittest import mock

RAN, REFUSED = "ran", "refused"
PATIENCE = 300.0
"""Time limit of a command in seconds; a few suffice on an idle machine."""


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)
"""YAML of a kilobyte that expands to 9^30 items; cases contain only its name."""


class Fault(AssertionError):
    """A command neither ran nor refused its input in one line."""


class _Hang(BaseException):
    """Timeout; no `Exception`, because readers report these as damaged files."""


def verdict(command: Callable[[], object]) -> str:
    """Run a command; return RAN or REFUSED.

    Raises `Fault` for a hang, an exit code other than 0 and 2, or output on stderr other than one
    line `error: ...` with code 2.
    """
    code: object = 0
    with _stderr() as read, _silent_stdout(), _stopped_after(PATIENCE):
        try:
            command()
        except SystemExit as end:
            code = end.code
        except _Hang:
            raise Fault(f"no end after {PATIENCE} s") from None
        output = read()
    if code in (0, None) and not output:
        return RAN
    line = output.removesuffix("\n")
    if code == 2 and line.startswith("error: ") and line.isprintable():
        return REFUSED
    raise Fault(f"exit code {code}, stderr: {output!r}")


def called(main: Callable[[], object], *argv: object) -> None:
    line = ["command", *map(str, argv)]
    with mock.patch.object(sys, "argv", line):
        main()


def run_module(name: str) -> None:
    """Run a script, or a tool such as tools.prepare, as `python -m` does."""
    if "." in name:  # Python warns if the module was imported before
        package = hasattr(sys.modules.get(name), "__path__")
        sys.modules.pop(f"{name}.__main__" if package else name, None)
    runpy.run_module(name, run_name="__main__")


@contextmanager
def _stderr() -> Iterator[Callable[[], str]]:
    """Capture stderr from Python, its warnings and native libraries."""
    with tempfile.TemporaryFile() as file:
        before = os.dup(2)
        os.dup2(file.fileno(), 2)
        direct = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)

        def read() -> str:
            direct.flush()
            file.seek(0)
            shown = [f"{w.category.__name__}: {w.message}\n" for w in warned]
            return "".join([file.read().decode(errors="backslashreplace"), *shown])

        try:
            with redirect_stderr(direct), warnings.catch_warnings(record=True) as warned:
                for unseen in (DeprecationWarning, PendingDeprecationWarning, ResourceWarning):
                    warnings.simplefilter("ignore", unseen)
                yield read
        finally:
            os.dup2(before, 2)
            os.close(before)


def _silent_stdout() -> redirect_stdout:
    """Discard stdout, but fail on text that is not valid UTF-8, like a strict terminal."""
    return redirect_stdout(io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))


@contextmanager
def _stopped_after(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)  # repeated, if the first is swallowed
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
