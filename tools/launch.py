"""torchrun, but a training that is asked to stop gets the time it needs, and one that fails ends
with its own exit code and its own last words."""

import os
import signal
import sys
from contextlib import suppress

from torch.distributed.elastic.multiprocessing.api import PContext, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import get_args_parser, run

from util.interrupt import SIGNALS, leaving_when_asked


def pass_signals_on() -> None:
    """Signals go to all processes, which save together and end; torchrun would kill them after 30
    seconds, as it still does after SIGHUP and SIGQUIT."""
    start = PContext.start

    def start_and_pass_on(context: PContext) -> None:
        def pass_on(number: int, _: object) -> None:
            for process in context.pids().values():
                with suppress(ProcessLookupError):
                    os.kill(process, number)

        start(context)  # takes these signals for torchrun
        for number in SIGNALS:
            signal.signal(number, pass_on)

    PContext.start = start_and_pass_on


def exit_code(error: ChildFailedError) -> int:
    """Of the process that failed first; one that was killed had no last words, so they are said."""
    codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
    # Of the others torchrun ends some by SIGTERM, and some end by an error of their own, code 1.
    rank = min(codes, key=lambda rank: (codes[rank] in (1, -signal.SIGTERM), codes[rank]))
    if codes[rank] >= 0:
        return codes[rank]
    number = signal.Signals(-codes[rank])
    hint = " (out of memory?)" if number == signal.SIGKILL else ""
    print(
        f"error: process {rank} was killed by {number.name}{hint}; the same command continues from "
        "the last checkpoint",
        file=sys.stderr,
    )
    return 128 + number  # as shells say it


if __name__ == "__main__":
    pass_signals_on()
    try:
        with leaving_when_asked():
            run(get_args_parser().parse_args())
    except SignalException as stopped:
        sys.exit(128 + stopped.sigval)
    except ChildFailedError as error:
        sys.exit(exit_code(error))
