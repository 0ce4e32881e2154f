"""The log of a run (terminal and log.txt), and versions of code and libraries."""

import functools
import hashlib
import logging
import os
import platform
import subprocess
import sys
import textwrap
from logging.handlers import MemoryHandler
from pathlib import Path

from tqdm import tqdm

from util.errors import printable

logger = logging.getLogger("semi")
LINE_WIDTH = 80
"""Characters in a line of the log, as on a terminal."""


class PrintableFormatter(logging.Formatter):
    """Formatter that begins warnings and errors with "warning: " or "error: ", and escapes control
    characters of file and class names."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        if record.levelno >= logging.WARNING:
            kind = "error" if record.levelno >= logging.ERROR else "warning"
            record.message = f"{kind}: {record.message}"
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep="\n\t")


class _TqdmHandler(logging.StreamHandler):
    """Handler that prints above a progress bar instead of into it.

    After a failure, such as a closed terminal or a full disk below `> out.txt`, training continues
    without it: the log file has all lines.
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=sys.stdout)
            sys.stdout.flush()
        except OSError as error:
            has_file = any(isinstance(handler, logging.FileHandler) for handler in logger.handlers)
            if isinstance(error, BrokenPipeError) or not has_file:
                raise  # the reader, such as `head`, has ended, and so does the command
            sys.stdout = open(os.devnull, "w")
            logger.warning(
                "the output cannot be written (%s); only log.txt continues", error.strerror
            )


def log_to_console() -> None:
    """Show the main process's log lines on the terminal."""
    from util import distributed

    logger.handlers.clear()
    logger.propagate = False
    logger.setLevel(logging.INFO if distributed.is_main() else logging.ERROR)
    console = _TqdmHandler()
    console.setFormatter(PrintableFormatter())
    logger.addHandler(console)
    logging.raiseExceptions = False  # the next checkpoint reports a full disk
    # Lines wait here until the run directory has a log file.
    logger.addHandler(MemoryHandler(capacity=1000, flushLevel=logging.CRITICAL + 1))


def versions() -> dict[str, str]:
    """Return Python, torch, device (with the number of processes) and git commit (with a + for
    changed files)."""
    import torch

    from util import distributed

    device = torch.cuda.get_device_name() if torch.cuda.is_initialized() else "cpu"
    processes = distributed.world_size()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": f"{processes} x {device}" if processes > 1 else device,
        "commit": _commit(),
    }


@functools.cache
def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12"]
    folder = Path(__file__).parent
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError:  # git is not installed
        return "unknown"
    return result.stdout.strip() or "unknown"


def code_version() -> dict[str, str]:
    """Return a digest of the source files, and the versions of the libraries that change results.

    The git commit is left out: a copy without git has none.
    """
    import numpy
    import PIL
    import timm
    import torch

    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    packages = ("dataset", "engine", "inference", "metrics", "model", "semi", "util")
    patterns = ("*.py", *(f"{package}/**/*.py" for package in packages))
    for path in sorted(path for pattern in patterns for path in root.glob(pattern)):
        digest.update(path.read_bytes())
    libraries = {module.__name__: module.__version__ for module in (torch, timm, numpy, PIL)}
    return {"sources": digest.hexdigest()[:12], **libraries}


def wrap_words(*words: str, first: str = "", rest: str = "  ") -> str:
    """Join texts into lines of `LINE_WIDTH`; a line breaks between them only.

    `first`, `rest`: indentation of the first line and of the others.
    """
    text = " ".join(word.replace(" ", "\0") for word in words)
    return textwrap.fill(
        text, LINE_WIDTH, initial_indent=first, subsequent_indent=rest,
        break_long_words=False, break_on_hyphens=False,
    ).replace("\0", " ")  # fmt: skip
