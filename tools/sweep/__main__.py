"""Run a sweep: methods x configs x partitions x seeds.

A sweep is a YAML file, see configs/sweeps/. Finished runs are skipped, unfinished runs resume, and
a run that fails does not stop the others; the same command continues an interrupted sweep. The
results of all runs are printed as a table at the end. Exit code 1: some runs failed.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from tools.methods import require_method
from tools.sweep.schedule import State, check_split_files, run_all, seconds_left, state_of
from tools.sweep.slurm import submit
from tools.sweep.spec import Planned, expand, read_sweep
from util.cli import exit_with_one_line, say_loading
from util.config.loading import load_config
from util.errors import UserError, counted, duration
from util.parser import Parser
from util.paths import find


def main() -> None:
    options = command_line().parse_args()
    with exit_with_one_line():
        sweep = read_sweep(find(options.spec))
        runs = expand(sweep, options.spec)
        for run in {run.kind: run for run in runs}.values():
            require_method(run.method)
            load_config(run.config, run.overrides)
        say_loading()  # PyTorch, which the methods' options need
        states = [state_of(run) for run in runs]
        say = printer(runs)
        if options.dry_run:
            show(states, say)
            return
        check_split_files(states)
        if options.slurm is not None:
            print(submit(states, sweep.save_path, options.slurm))
            return
        failed = run_all(states, options.devices, say)
        for run in failed:
            print(f"failed: python {' '.join(run.command)}")
        print_table(states)
    sys.exit(1 if failed else 0)


def printer(runs: list[Planned]) -> Callable[[Planned, object], None]:
    """Return a function that prints a message about a run, after its number and folder."""
    numbers = {run.folder: number for number, run in enumerate(runs, start=1)}
    width = max(len(str(run.folder)) for run in runs)

    def say(run: Planned, message: object) -> None:
        number = f"{numbers[run.folder]:>{len(str(len(runs)))}}"
        print(f"[{number}/{len(runs)}] {str(run.folder):<{width}}  {message}", flush=True)

    return say


def show(states: list[State], say: Callable[[Planned, object], None]) -> None:
    """Print the progress of all runs, and the time and memory that the rest needs."""
    from engine.estimate import TITLE  # imports timm
    from tools.sweep.estimate import estimates

    for state in states:
        say(state.planned, state)
    seconds, unknown = seconds_left(states)
    todo = sum(not state.is_done for state in states)
    measured = f"; {duration(seconds)} on one device for {{}}, by epochs of the same kind of run"
    known = todo - len(unknown)
    print(f"{counted(len(states), 'run')}, {todo} not done{measured.format(known) * bool(known)}")
    if unknown:
        print(f"without such epochs: {counted(len(unknown), 'run')}; {TITLE}", flush=True)
    for lines in estimates(unknown):
        print(lines, flush=True)


def print_table(states: list[State]) -> None:
    """Print the results of the runs that exist."""
    from tools.results.tables import as_text, collect  # imports pandas

    folders = [str(s.planned.folder) for s in states if s.planned.has_started]
    try:
        print("", as_text(collect(folders)), sep="\n")
    except UserError as error:  # all runs failed
        print(f"\nno table: {error}")


def command_line() -> Parser:
    parser = Parser(
        __doc__,
        (
            "python -m tools.sweep configs/sweeps/shapes.yaml --dry-run",
            "python -m tools.sweep configs/sweeps/shapes.yaml --devices 0 1 2 3",
        ),
    )
    add = parser.add_argument
    add("spec", type=Path, metavar="SPEC", help="YAML file, see configs/sweeps/")
    add("--devices", nargs="+", default=["auto"], metavar="DEVICE",
        help="GPU numbers or cpu: one run at a time on each; auto: one run at a time")  # fmt: skip
    add("--dry-run", action="store_true", help="list the runs and their cost, and exit")
    add("--slurm", nargs=argparse.REMAINDER, metavar="OPTION",
        help="submit a job array; further arguments go to sbatch (default: run here)")  # fmt: skip
    return parser


if __name__ == "__main__":
    main()
