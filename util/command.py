"""The command line of the methods, and how every command of the project ends."""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from util.errors import UserError, one_line
from util.log import RunFolder

USER_ERROR = 2
INTERRUPTED = 130


def arguments(name: str, unlabeled: bool) -> argparse.Namespace:
    """The command line of a method; `overrides` holds what goes into the config."""
    parser = argparse.ArgumentParser(description=f"Train {name}.")
    parser.add_argument("--config", required=True, help="YAML file, see configs/")
    parser.add_argument("--labeled-id-path", help="list of labelled images (data.labeled)")
    if unlabeled:
        parser.add_argument("--unlabeled-id-path", help="list of unlabelled images")
    parser.add_argument("--save-path", type=Path, required=True, help="folder of the run")
    _add_common(parser)
    parser.add_argument("--seed", type=int, help="overrides the config's seed")
    parser.add_argument(
        "--resume",
        default="auto",
        metavar="auto|never|PATH",
        help="auto: continue the run in --save-path, if there is one; never: refuse to; or a "
        "checkpoint",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, run one step, and end"
    )
    found = parser.parse_args()
    lists = {"labeled": found.labeled_id_path}
    if unlabeled:
        lists["unlabeled"] = found.unlabeled_id_path
    found.overrides = {
        "data": {kind: path for kind, path in lists.items() if path is not None},
        **({} if found.seed is None else {"seed": found.seed}),
    }
    return found


def checkpoint_parser(description: str | None) -> argparse.ArgumentParser:
    """What every command that takes a checkpoint takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", required=True, help="the config it was trained with")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument(
        "--which", default="model", help="network in the checkpoint, such as model_ema"
    )
    _add_common(parser)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="override config keys, such as optimizer.lr=0.002",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


@contextmanager
def exit_with_one_line(quiet: bool = False) -> Iterator[None]:
    """A `UserError` ends the command with its one line on stderr and exit code 2.

    `quiet`: for processes beside the main one, where they all fail alike.
    """
    try:
        yield
    except UserError as error:
        if not quiet:
            print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def among_others() -> bool:
    """Whether another process than this one speaks for all (known before they have joined)."""
    return int(os.environ.get("RANK", 0)) > 0


def fresh_or_resumed(folder: RunFolder, resume: str) -> Path | None:
    """The checkpoint to continue from, if any.

    Raises `UserError` when `--resume never` meets a run, or the named checkpoint is missing.
    """
    if resume == "auto":
        return folder.latest if folder.latest.exists() else None
    if resume == "never":
        if folder.latest.exists():
            raise UserError(
                f"--save-path {folder.path}: holds a run already; choose another folder, or "
                "--resume auto to continue it"
            )
        return None
    if not Path(resume).is_file():
        raise UserError(f"--resume {resume}: no such checkpoint; expected auto, never or a file")
    return Path(resume)
