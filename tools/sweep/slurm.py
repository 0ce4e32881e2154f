"""Submit a sweep as an array of Slurm jobs, each by tools/slurm_train.sh."""

import hashlib
import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tools.sweep.schedule import RunProgress
from tools.sweep.spec import PlannedRun
from util.errors import UserError, counted
from util.io import write_once
from util.paths import REPOSITORY, find_path

SCRIPT = "tools/slurm_train.sh"


def submit(states: Sequence[RunProgress], folder: Path, args: Sequence[str]) -> str:
    """Submit the unfinished runs; return sbatch's message.

    A job reads its run from a line of a file in `folder`. The file's name is a hash of its
    content: queued jobs read it days later, so it never changes. Raises `UserError` where sbatch
    is missing or fails.
    """
    todo = [str(number) for number, state in enumerate(states, start=1) if not state.is_done]
    if not todo:
        return "all runs are done"
    text = "".join(f"{shell_line(state.planned)}\n" for state in states).encode()
    path = folder / f"array-{hashlib.sha256(text).hexdigest()[:12]}.sh"
    write_once(path, text)
    command = ["sbatch", f"--array={','.join(todo)}", *args, SCRIPT]
    variables = os.environ | {"array": str(path.resolve())}
    try:
        done = subprocess.run(
            command, cwd=REPOSITORY, env=variables, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise UserError(f"--slurm: sbatch cannot be run ({error})") from None
    if done.returncode:
        message = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise UserError(f"--slurm: {shlex.join(command)}: {message}")
    return f"{done.stdout.strip()} ({counted(len(todo), 'run')}, listed in {path})"


def shell_line(planned: PlannedRun) -> str:
    """Return shell code for the variables of tools/train.sh, which needs absolute paths, and the
    arguments of the method's script."""
    paths = {
        "config": planned.config,
        "labeled_id_path": planned.split_files.get("labeled"),
        "unlabeled_id_path": planned.split_files.get("unlabeled"),
    }
    variables = {key: str(find_path(path).resolve()) if path else "" for key, path in paths.items()}
    variables["save_path"] = str(planned.folder.resolve())
    variables["method"] = planned.method
    exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    return f'export {exports}; set -- {shlex.join(planned.arguments)} "$@"'
