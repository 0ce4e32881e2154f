"""Data workers: limits of the system, and reports of their failures."""

import errno
import re
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import active_children

from util.errors import UserError, counted

START_METHOD = "fork"
"""Start method of data workers: only forked ones share decoded images."""
BATCH_TIMEOUT = 30 * 60
"""Seconds to wait for a batch; processes wait longer for each other (`util.distributed`)."""
KILL_SECONDS = 5
"""Seconds to wait for a killed data worker to end."""
OPEN_FILES = 100
"""Files that a process has open, except files for its data workers."""
PIPES = 16
"""Files that the training and the validation loader have open for each data worker."""


def allow_open_files(workers: int, tensors: int) -> None:
    """Raise this process's limit on open files as its data workers need; with too few, batches are
    lost and the run waits for them.

    `tensors`: in a batch; each is an open file on its way from a data worker.

    Raises `UserError` where the system allows fewer.
    """
    per_worker = PIPES + 2 * tensors  # each worker prefetches two batches
    needed = OPEN_FILES + tensors + workers * per_worker
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not workers or soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        fewer = max(0, (hard - OPEN_FILES - tensors) // per_worker)
        raise UserError(
            f"ulimit -n: found a limit of {hard} open files, expected {needed} for "
            f"{counted(workers, 'data worker')} per process. Fix: ulimit -n {needed}, or "
            f"--set data.workers={fewer}"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def worker_failure(error: Exception) -> UserError | None:
    """Return advice if an error of Python or torch means that a data worker died or does not
    answer, or that too many files are open."""
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        return UserError(f"ulimit -n: {error}. Fix: raise it, or --set data.workers=0")
    found = re.match(r"DataLoader (timed out|worker) .*", str(error))
    if not isinstance(error, RuntimeError) or found is None:
        return None
    return UserError(
        f"data.workers: a data worker died or did not answer ({found[0]}). Fix: look for "
        "out-of-memory kills or a hanging disk; the same command continues the run; "
        "--set data.workers=0 loads without workers"
    )


@contextmanager
def killed_on_failure() -> Iterator[None]:
    """Kill the data workers of a command that fails or is stopped: Python waits for them before it
    exits, and one that hangs never ends by itself."""
    try:
        yield
    except BaseException:
        if workers := active_children():
            handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's would raise
            for worker in workers:
                worker.kill()
                worker.join(KILL_SECONDS)
            signal.signal(signal.SIGCHLD, handler)
        raise
