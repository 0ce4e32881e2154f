"""A sweep as an array of Slurm jobs, each by tools/slurm_train.sh."""

import hashlib
import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tools.sweep.schedule import State
from tools.sweep.spec import Planned
from util.errors import UserError
from util.io import write_atomically
from util.paths import REPOSITORY, find

SCRIPT = "tools/slurm_train.sh"


def submit(states: Sequence[State], folder: Path, options: Sequence[str]) -> str:
    """Submit what is not done; returns what sbatch says.

    A job finds its run in the line of its number in a file of all runs, below `folder`, that is
    never written again: jobs wait, and are queued again, for days.  Raises `UserError`.
    """
    todo = [str(number) for number, state in enumerate(states, start=1) if not state.is_done]
    if not todo:
        return "all runs are done"
    path = _write_runs([state.planned for state in states], folder)
    command = ["sbatch", f"--array={','.join(todo)}", *options, SCRIPT]
    variables = os.environ | {"array": str(path.resolve())}
    try:
        done = subprocess.run(
            command, cwd=REPOSITORY, env=variables, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise UserError(f"--slurm: sbatch cannot be run ({error})") from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise UserError(f"--slurm: {shlex.join(command)}: {said}")
    return f"{done.stdout.strip()} ({len(todo)} runs, listed in {path})"


def _write_runs(runs: Sequence[Planned], folder: Path) -> Path:
    """A line of shell for each run, in a file whose name follows from its content."""
    text = "".join(f"{shell_line(planned)}\n" for planned in runs).encode()
    path = folder / f"array-{hashlib.sha256(text).hexdigest()[:12]}.sh"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error})") from None
    write_atomically(path, lambda file: file.write(text))
    return path


def shell_line(planned: Planned) -> str:
    """Return the variables of tools/train.sh, whose paths are absolute as it changes the working
    directory, and the arguments of the method's script."""
    paths = planned.list_files
    variables = {
        "method": planned.method,
        "config": _absolute(planned.config),
        "labeled_id_path": _absolute(paths.get("labeled")),
        "unlabeled_id_path": _absolute(paths.get("unlabeled")),
        "save_path": _absolute(planned.folder),
    }
    exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    return f'export {exports}; set -- {shlex.join(planned.arguments)} "$@"'


def _absolute(path: Path | None) -> str:
    return str(find(path).resolve()) if path else ""
