"""The command line of the methods; how the commands of the project call each other and end."""

import argparse
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from util.checkpoint import SUFFIX, find_checkpoint, load
from util.config import Config
from util.config_file import load_config, resolve
from util.errors import Echo, UserError, one_line
from util.interrupt import EXIT_CODE, Interrupted
from util.workers import failure, killed_on_failure

USER_ERROR = 2
KILLED_BY_HAND = 130


def arguments(name: str, unlabeled: bool) -> argparse.Namespace:
    """The command line of a method; `overrides` holds what goes into the config."""
    parser = argparse.ArgumentParser(description=f"Train {name}.")
    parser.add_argument("--config", required=True, help="YAML file, see configs/")
    add_lists(parser, unlabeled)
    parser.add_argument("--save-path", type=Path, required=True, help="folder of the run")
    add_settings(parser)
    add_device(parser)
    parser.add_argument("--seed", type=int, help="overrides the config's seed")
    parser.add_argument(
        "--resume",
        default="auto",
        metavar="auto|never|PATH",
        help="auto: continue the run in --save-path, if there is one; never: refuse to; or a "
        "checkpoint",
    )
    parser.add_argument(
        "--force", action="store_true", help="resume with another config than the run began with"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, run one step, and end"
    )
    found = parser.parse_args()
    seed = {} if found.seed is None else {"seed": found.seed}
    found.overrides = given_lists(found) | seed
    return found


def add_lists(parser: argparse.ArgumentParser, unlabeled: bool = True) -> None:
    """The options that name lists instead of the config."""
    parser.add_argument("--labeled-id-path", help="list of labelled images (data.labeled)")
    if unlabeled:
        parser.add_argument("--unlabeled-id-path", help="list of unlabelled images")


def given_lists(options: argparse.Namespace) -> dict[str, Any]:
    """What these options put into a config."""
    paths = {kind: getattr(options, f"{kind}_id_path", None) for kind in ("labeled", "unlabeled")}
    given = {kind: path for kind, path in paths.items() if path is not None}
    return {"data": given} if given else {}


def checkpoint_parser(description: str | None, device: bool = True) -> argparse.ArgumentParser:
    """What every command that takes a checkpoint takes; `device`: where it may run elsewhere."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--config", type=Path, help="the config it was trained with (default: the one beside it)"
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="PATH|hf:OWNER/NAME",
        help="a checkpoint or .safetensors, a run's folder (its best checkpoint), a folder that "
        "tools.publish wrote, or such a folder on the Hugging Face hub",
    )
    parser.add_argument(
        "--which", default="model", help="network in the checkpoint, such as model_ema"
    )
    add_settings(parser)
    if device:
        add_device(parser)
    return parser


def add_tta(parser: argparse.ArgumentParser) -> None:
    """The option of commands that predict images; `config_of` heeds it."""
    parser.add_argument(
        "--tta",
        nargs="+",
        default=[],
        metavar="flip|SCALE",
        help="test-time augmentation: probabilities averaged over mirror images and scales, such "
        "as --tta flip 0.75 1 1.25 (evaluation.flip, evaluation.scales)",
    )


def _augmentation(words: list[str]) -> list[str]:
    """What the words of `--tta` set in a config."""
    scales = [word for word in words if word != "flip"]
    for word in scales:
        if not re.fullmatch(r"\d*\.?\d+", word):
            raise UserError(f"--tta: found '{word}', expected flip or scales, such as 0.75 1 1.25")
    flip = ["evaluation.flip=true"] * ("flip" in words)
    return flip + [f"evaluation.scales=[{', '.join(scales)}]"] * bool(scales)


def checkpoint_of(options: argparse.Namespace) -> Path:
    """The file that `--checkpoint` leads to; says which where that is another.

    Raises `UserError` as `find_checkpoint` does.
    """
    found = find_checkpoint(options.checkpoint, options.which)
    if found != options.checkpoint and not is_secondary_rank():
        print(f"checkpoint: {found}")
    return found


def config_of(options: argparse.Namespace) -> Config:
    """The config of a command that takes a checkpoint: what `--config` names, else the one beside
    it, else the one inside a .safetensors.

    Raises `UserError` where there is none.
    """
    settings = [*options.set, *_augmentation(getattr(options, "tta", []))]
    path = options.config or options.checkpoint.parent / "config.yaml"
    if options.config is None and not path.exists():
        if options.checkpoint.suffix == SUFFIX and "config" in (whole := load(options.checkpoint)):
            return resolve(whole["config"], str(options.checkpoint), settings)
        raise UserError(
            f"{path}: no config lies beside the checkpoint; name the one it was trained with: "
            "--config"
        )
    return load_config(path, settings)


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
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def run(script: str, *arguments: object) -> None:
    """Run a script of the project as its user would; end as it ends when it fails."""
    command = [sys.executable, script, *map(str, arguments)]
    print(f"\n$ python {' '.join(command[1:])}", flush=True)
    code = subprocess.run(command, check=False).returncode
    if code:
        sys.exit(code)


@contextmanager
def exit_with_one_line(quiet: bool = False) -> Iterator[None]:
    """A `UserError` ends the command with its one line on stderr and exit code 2, as does a lack of
    memory or open files, or a data worker that failed; a run that was asked to stop ends it with
    `util.interrupt.EXIT_CODE`.

    `quiet`: for processes beside the main one, where they all fail alike.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that it cannot show must not end a run
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with killed_on_failure():
            yield
        sys.stdout.flush()
    except BrokenPipeError:  # what reads the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (UserError, MemoryError, RuntimeError, OSError) as error:
        problem = error if isinstance(error, UserError) else lack_of_memory(error)
        problem = problem or failure(error)
        if problem is None:
            raise
        if not quiet:
            print(f"error: {one_line(problem)}", file=sys.stderr, flush=True)
        sys.exit(USER_ERROR)
    except Interrupted:
        sys.exit(EXIT_CODE)
    except Echo:
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        sys.exit(KILLED_BY_HAND)


def lack_of_memory(error: Exception) -> UserError | None:
    """What to do about it, if that is what an error of Python, torch or a data worker says."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    said = re.search(r"can't allocate memory.*|Unable to allocate.*", str(error))
    if not known and not said:
        return None
    reason = said[0] if said else str(error).partition("\n")[0] or type(error).__name__
    return UserError(
        f"out of memory ({reason[:200]}); lower micro_batch, batch_size, crop_size or data.workers"
    )


def is_secondary_rank() -> bool:
    """Whether another process than this one speaks for all (known before they have joined)."""
    return int(os.environ.get("RANK", 0)) > 0
