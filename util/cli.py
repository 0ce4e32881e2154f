"""The command line of the methods, and how commands call each other and end."""

import argparse
import atexit
import io
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

from util.errors import USER_ERROR, UserError, one_line, print_error, printable, reason
from util.interrupt import (
    EXIT_CODE,
    KILLED_BY_HAND,
    Interrupted,
    exiting_on_ctrl_c,
    ignore_signals,
    raising_on_ctrl_c,
)
from util.launcher import launched_rank, launched_world_size
from util.log import PrintableFormatter
from util.parser import Parser
from util.paths import REPOSITORY
from util.workers import killed_on_failure, worker_failure

NO_MEMORY = (
    r"can't allocate memory.*|CUDA error: out of memory|\w+_STATUS_ALLOC_FAILED"
    r"|Cuda failure.*out of memory"
)
"""Words of torch, cuBLAS, cuDNN and NCCL for out of memory."""
SPLIT_ADJECTIVES = {"labeled": "labelled", "unlabeled": "unlabelled", "val": "validation"}
"""Adjectives in texts, by split."""


def arguments(name: str, unlabeled: bool) -> argparse.Namespace:
    """Parse the command line of a method; `overrides` holds its config keys."""
    script = Path(sys.argv[0]).name
    parser = Parser(
        f"Train {name}.",
        f"python {script} --config configs/shapes.yaml --save-path runs/shapes",
        f"python {script} --config configs/shapes.yaml --save-path runs/try --set epochs=2 "
        "--dry-run",
    )
    parser.add_argument("--config", required=True, help="YAML file, see configs/")
    add_split_options(parser, unlabeled)
    parser.add_argument("--save-path", type=Path, required=True, help="run directory")
    add_settings(parser)
    add_device(parser)
    parser.add_argument(
        "--seed", type=int, help="seed of all randomness (default: the config's seed)"
    )
    parser.add_argument(
        "--resume",
        default="auto",
        metavar="auto|never|PATH",
        help="auto: resume the run in --save-path, if any; never: start a new run and refuse to "
        "overwrite one; PATH: continue from this checkpoint",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="resume even if config or split files changed since the first start",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, time a few steps, estimate memory and time, and end",
    )
    args = parser.parse_args()
    seed = {} if args.seed is None else {"seed": args.seed}
    args.overrides = split_overrides(args) | seed
    return args


def add_split_options(parser: argparse.ArgumentParser, unlabeled: bool = True) -> None:
    """Add the options that replace splits of the config."""
    for split in ("labeled", "unlabeled") if unlabeled else ("labeled",):
        parser.add_argument(
            f"--{split}-id-path",
            metavar="FILE",
            help=f"split file of {SPLIT_ADJECTIVES[split]} images (default: data.{split} of the "
            "config)",
        )


def split_overrides(args: argparse.Namespace) -> dict[str, Any]:
    """Return the config keys that the split options set, as a tree."""
    paths = {split: getattr(args, f"{split}_id_path", None) for split in ("labeled", "unlabeled")}
    given = {split: path for split, path in paths.items() if path is not None}
    return {"data": given} if given else {}


def add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="override config keys, such as optimizer.lr=0.002; all keys: docs/configuration.md",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto: one GPU per process if there are enough, else the CPU",
    )


@contextmanager
def importing() -> Iterator[None]:
    """Announce imports of PyTorch on a terminal, which take seconds; Ctrl-C ends them at once, as
    libraries would turn its exception into their own errors."""
    if "torch" not in sys.modules and sys.stderr.isatty() and launched_rank() == 0:
        print("loading PyTorch ...", file=sys.stderr, flush=True)
    with exiting_on_ctrl_c():
        yield


def run_script(script: str, *arguments: object) -> None:
    """Run a script of the project from any folder; if it fails, end with its exit code."""
    script = script if script == "-m" else os.path.relpath(REPOSITORY / script)
    command = [sys.executable, script, *map(str, arguments)]
    print(f"\n$ python {' '.join(command[1:])}", flush=True)
    code = subprocess.run(command, check=False).returncode
    if code:
        sys.exit(code)


class _EscapedOutput:
    """Standard output with escapes for control characters of file and class names."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(printable(text, keep="\n\t"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def exit_with_one_line() -> Iterator[None]:
    """End the command with one line on stderr and exit code 2 after a `UserError`, a lack of
    memory, open files or permissions, or a failed data worker, and with `util.interrupt.EXIT_CODE`
    after a request to stop. Warnings that no handler prints go to stderr in the form of the log.

    Of several ranks, the first that fails gives the reason, and all end with its exit code.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # unencodable names must not end a run
        sys.stdout.reconfigure(errors="backslashreplace")
        sys.stdout = cast(TextIO, _EscapedOutput(sys.stdout))
    if logging.lastResort:
        logging.lastResort.setFormatter(PrintableFormatter())
    try:
        with raising_on_ctrl_c(), killed_on_failure():
            yield
        sys.stdout.flush()
    except Interrupted:
        atexit.register(ignore_signals)  # Python ends with default handlers
        sys.exit(EXIT_CODE)
    except KeyboardInterrupt:
        sys.exit(KILLED_BY_HAND)
    except BrokenPipeError:  # the reader of the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)  # as a shell reports it: the command did not finish
    except Exception as error:
        problem = error if isinstance(error, UserError) else _advice(error)
        code = _end_rank(error, problem) if launched_world_size() > 1 else _end(problem)
        if code is None:
            raise
        sys.exit(code)


def _advice(error: Exception) -> UserError | None:
    return out_of_memory_advice(error) or worker_failure(error) or _permission_denied(error)


def _permission_denied(error: Exception) -> UserError | None:
    if isinstance(error, PermissionError) and error.filename is not None:
        return UserError(
            f"{error.filename}: permission denied. Fix: change permissions, or name another path"
        )
    return None


def _end(problem: UserError | None) -> int | None:
    """Print the problem of a single process; return the exit code, or None for a fault of the
    program, which ends in its traceback."""
    if problem is None:
        return None
    print_error(f"error: {one_line(problem)}")
    return USER_ERROR


def _end_rank(error: Exception, problem: UserError | None) -> int | None:
    """Report this rank's error to the other ranks, and print the first error if this rank should.

    Returns the exit code, or None for a bug, which ends in a traceback.
    """
    from util import rendezvous

    lost = None if problem else rendezvous.lost_contact(error)
    text = one_line(problem) if problem else f"{type(error).__name__}: {one_line(error)}"
    cause = lost or text
    shown, code = rendezvous.report_failure(cause, USER_ERROR if problem else 1)
    if shown == cause and not problem and not lost:
        return None
    if shown:
        print_error(f"error: {shown}")
    return code


def out_of_memory_advice(error: Exception) -> UserError | None:
    """Return advice if an error of Python, torch or a data worker means out of memory."""
    # Compare the name, as torch may not be imported.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        text = reason(error)
    # torch on the CPU and CUDA's libraries raise errors that differ from others in their text only.
    elif match := re.search(NO_MEMORY, str(error)):
        text = match[0][:200]
    else:
        return None
    return UserError(
        f"out of memory ({text}). Fix: in training, lower micro_batch, crop_size or data.workers; "
        "in evaluation, --set evaluation.mode=sliding_window; on a shared GPU, wait for other "
        "processes (nvidia-smi)"
    )
