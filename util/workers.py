"""Data workers: limits of the system, and reports of their failures."""

import errno
import os
import re
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import active_children

from util.errors import UserError

START_METHOD = "fork"
"""Start method of data workers: only forked ones share decoded images."""
BATCH_TIMEOUT = 30 * 60
"""Seconds to wait for a batch; processes wait longer for each other (`util.distributed`)."""
KILL_SECONDS = 5
"""Seconds to wait for a killed data worker to end."""
OPEN_FILES = 10240
"""Enough for any number of data workers; the most that macOS allows."""
LONGEST_TMPDIR = 107 - len("/pymp-12345678/listener-12345678")
"""Longest path of the temporary folder, in bytes: multiprocessing adds names to it, and the path of
a socket may have 107 bytes."""


def allow_open_files() -> None:
    """Raise this process's limit on open files: each tensor on its way from a worker is one, and
    with too few, batches are lost and the run waits for them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def require_short_tmpdir() -> None:
    """Raise `UserError` where data workers cannot make the sockets over which they send batches:
    they only print an error, and the run would wait for them."""
    folder = tempfile.gettempdir()
    length = len(os.fsencode(folder))
    if length > LONGEST_TMPDIR and sys.version_info < (3, 14):  # later versions then use /tmp
        raise UserError(
            f"TMPDIR {folder}: too long for the sockets of data workers; expected at most "
            f"{LONGEST_TMPDIR} bytes, found {length}. Fix: use another folder, such as "
            "TMPDIR=/tmp, or --set data.workers=0"
        )


def worker_failure(error: Exception) -> UserError | None:
    """Return advice if an error of Python or torch means that a data worker died or does not
    answer, that too many files are open, or that shared memory is full."""
    no_file_left = "items of ancdata" in str(error)  # a tensor's file did not reach this process
    if no_file_left or isinstance(error, OSError) and error.errno == errno.EMFILE:
        return UserError(
            f"ulimit -n: too few open files ({error}). Fix: raise it, or --set data.workers=0"
        )
    if found := re.search(r"(unable to allocate|out of) shared memory.*", str(error)):
        return UserError(
            f"/dev/shm: too small for the batches of data workers ({found[0]}). Fix: in Docker, "
            "docker run --shm-size=8g; elsewhere, --set data.workers=0"
        )
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
