"""The command line of the methods, and how commands call each other and end."""

import argparse
import io
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
    quitting_on_interrupt,
    raising_on_interrupt,
)
from util.launched import launched_rank, launched_ranks
from util.parser import Parser
from util.paths import REPOSITORY
from util.workers import killed_on_failure, worker_failure

SAVE_PATH = (
    "run directory; of several machines without a shared disk, the first one's (NODE_RANK=0) holds "
    "the checkpoints and log, so the same machine must be the first when the run is resumed"
)


def arguments(name: str, unlabeled: bool) -> argparse.Namespace:
    """Parse the command line of a method; `overrides` holds its config keys."""
    script = Path(sys.argv[0]).name
    parser = Parser(
        f"Train {name}.",
        (
            f"python {script} --config configs/shapes.yaml --save-path runs/shapes",
            f"python {script} --config configs/shapes.yaml --save-path runs/try --set epochs=2 "
            "--dry-run",
        ),
    )
    parser.add_argument("--config", required=True, help="YAML file, see configs/")
    add_lists(parser, unlabeled)
    parser.add_argument("--save-path", type=Path, required=True, help=SAVE_PATH)
    add_settings(parser)
    add_device(parser)
    parser.add_argument(
        "--seed", type=int, help="seed of all randomness (default: the config's seed)"
    )
    parser.add_argument(
        "--resume",
        default="auto",
        metavar="auto|never|PATH",
        help="auto: continue the run in --save-path, if there is one; never: refuse to; or a "
        "checkpoint",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="resume with another config, or other split files, than the run started with",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, time a few steps, estimate memory and time, and end",
    )
    found = parser.parse_args()
    seed = {} if found.seed is None else {"seed": found.seed}
    found.overrides = given_lists(found) | seed
    return found


def add_lists(parser: argparse.ArgumentParser, unlabeled: bool = True) -> None:
    """Add the options that replace lists of the config."""
    for kind, name in {"labeled": "labelled", "unlabeled": "unlabelled"}.items():
        if kind == "labeled" or unlabeled:
            parser.add_argument(
                f"--{kind}-id-path",
                metavar="LIST",
                help=f"list of {name} images (default: data.{kind} of the config)",
            )


def given_lists(options: argparse.Namespace) -> dict[str, Any]:
    """Return the config keys that these options set."""
    paths = {kind: getattr(options, f"{kind}_id_path", None) for kind in ("labeled", "unlabeled")}
    given = {kind: path for kind, path in paths.items() if path is not None}
    return {"data": given} if given else {}


def add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="override config keys, such as optimizer.lr=0.002",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto: GPUs where there is one for each process, else the CPU",
    )


@contextmanager
def importing() -> Iterator[None]:
    """Announce imports of PyTorch on a terminal, which take seconds; Ctrl-C ends them at once, as
    libraries would turn its exception into their own errors."""
    if "torch" not in sys.modules and sys.stderr.isatty() and launched_rank() == 0:
        print("loading PyTorch ...", file=sys.stderr, flush=True)
    with quitting_on_interrupt():
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
    memory or open files, or a failed data worker, and with `util.interrupt.EXIT_CODE` after a
    request to stop.

    Of several ranks, the first that fails gives the reason, and all end with its exit code.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # unencodable names must not end a run
        sys.stdout.reconfigure(errors="backslashreplace")
        sys.stdout = cast(TextIO, _EscapedOutput(sys.stdout))
    try:
        with raising_on_interrupt(), killed_on_failure():
            yield
        sys.stdout.flush()
    except Interrupted:
        sys.exit(EXIT_CODE)
    except KeyboardInterrupt:
        sys.exit(KILLED_BY_HAND)
    except BrokenPipeError:  # the reader of the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)  # as a shell reports it: the command did not finish
    except Exception as error:
        if (code := _end(error)) is None:
            raise
        sys.exit(code)


def _end(error: Exception) -> int | None:
    """Print the reason for the end, if this process has to; return the exit code, or None for a
    fault of the program, which ends in its traceback."""
    problem = (
        error
        if isinstance(error, UserError)
        else out_of_memory_advice(error) or worker_failure(error)
    )
    code = USER_ERROR if problem else 1
    own = one_line(problem) if problem else f"{type(error).__name__}: {one_line(error)}"
    shown, lost = own, None
    if launched_ranks() > 1:
        from util import rendezvous

        lost = None if problem else rendezvous.lost_contact(error)
        own = lost or own
        shown, code = rendezvous.report_failure(own, code)
    if shown == own and not problem and not lost:
        return None
    if shown:
        print_error(f"error: {shown}")
    return code


def out_of_memory_advice(error: Exception) -> UserError | None:
    """Return advice if an error of Python, torch or a data worker means out of memory."""
    # Compare the name, as torch may not be imported.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        text = reason(error)
    # On the CPU torch raises a RuntimeError that differs from others in its text only.
    elif match := re.search(r"can't allocate memory.*", str(error)):
        text = match[0][:200]
    else:
        return None
    return UserError(
        f"out of memory ({text}); lower micro_batch, batch_size, crop_size or data.workers"
    )
