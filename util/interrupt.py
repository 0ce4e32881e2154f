"""Requests to stop: SIGTERM and SIGUSR1 (batch systems), SIGHUP (a closed terminal), Ctrl-C."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType
from typing import Any

from util.errors import UserError

EXIT_CODE = 75
"""Exit code of a run that was stopped and saved; the same command resumes it (EX_TEMPFAIL)."""

KILLED_BY_HAND = 130
"""Exit code after Ctrl-C."""

STOP_TIMEOUT = 120.0
"""Seconds that one of several processes waits for a batch after it was asked to stop."""
SIGNALS = [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]
if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
    SIGNALS.append(signal.SIGHUP)


def ignore_signals(_: int = 0) -> None:
    """Ignore signals from here on: in a data worker, as the training needs batches to finish its
    step, and in a run that has stopped, as another signal would change its exit code. Terminals and
    batch systems signal all processes, some of them several times."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class Interrupted(Exception):
    """The run was asked to stop, and has saved its state."""


class _Stopped(BaseException):
    """A signal that arrives while a batch is awaited; no `Exception`, as readers of images turn any
    into an error of the file."""


class StopRequest:
    """Record of signals to stop; a second Ctrl-C does not wait for the end of the step."""

    def __init__(self) -> None:
        self.signal_name = ""
        self._waiting_process = self._limited_process = 0

    def note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGALRM:
            raise UserError(
                f"data.workers: no batch came within {STOP_TIMEOUT:g} s after {self.signal_name}; "
                "stopped without saving. The same command continues from the last checkpoint"
            )
        if self.signal_name and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name
        if self._limited_process == os.getpid():
            signal.setitimer(signal.ITIMER_REAL, STOP_TIMEOUT)
        if self._waiting_process == os.getpid():  # not in a data worker that was just forked
            self._waiting_process = 0
            raise _Stopped

    def with_stop_timeout(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield batches; after a signal, wait for `STOP_TIMEOUT` seconds at most for the next one.

        For one of several processes: the others wait for it in the middle of a step, so it can
        neither leave the epoch nor save. Raises `UserError` when the batch does not come.
        """
        iterator = iter(batches)
        end = object()
        while True:
            self._limited_process = os.getpid()
            if self.signal_name:
                signal.setitimer(signal.ITIMER_REAL, STOP_TIMEOUT)
            batch = next(iterator, end)
            self._limited_process = 0
            signal.setitimer(signal.ITIMER_REAL, 0)
            if batch is end:
                return
            yield batch

    def until_signal(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield batches until a signal arrives while the next one is awaited: data workers that
        hang do not keep the process from stopping."""
        iterator = iter(batches)
        end = object()
        batch: Any = end
        while True:
            with suppress(_Stopped):
                self._waiting_process = os.getpid()
                batch = next(iterator, end)
                self._waiting_process = 0
            if self.signal_name or batch is end:
                return
            yield batch


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Record signals inside instead of ending the process."""
    request = StopRequest()
    with handling((*SIGNALS, signal.SIGALRM), request.note):
        yield request


def exiting_on_sigterm() -> AbstractContextManager[None]:
    """End the process with `EXIT_CODE` on SIGTERM or SIGUSR1 inside: nothing to save yet."""
    return handling((signal.SIGTERM, signal.SIGUSR1), lambda *_: sys.exit(EXIT_CODE))


def exit_on_sigterm() -> None:
    """End the process at once on SIGTERM or SIGUSR1, with `EXIT_CODE`, from here on.

    An exception would be lost in imports: some modules catch it.
    """
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda *_: os._exit(EXIT_CODE))


def _interrupts() -> tuple[int, ...]:
    """Return the signal of Ctrl-C; none in the background of a shell, which ignores it."""
    return () if signal.getsignal(signal.SIGINT) == signal.SIG_IGN else (signal.SIGINT,)


def _quit(*_: object) -> None:
    os._exit(KILLED_BY_HAND)


def exit_on_ctrl_c() -> None:
    """Let Ctrl-C end the process at once from here on."""
    for number in _interrupts():
        signal.signal(number, _quit)


def raising_on_ctrl_c() -> AbstractContextManager[None]:
    """Raise `KeyboardInterrupt` on Ctrl-C inside."""
    return handling(_interrupts(), signal.default_int_handler)


def exiting_on_ctrl_c() -> AbstractContextManager[None]:
    """End the process on Ctrl-C inside, as after `exit_on_ctrl_c`."""
    return handling(_interrupts(), _quit)


@contextmanager
def handling(numbers: Iterable[int], handler: Callable[..., object]) -> Iterator[None]:
    """Call `handler(number, frame)` on these signals inside; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
