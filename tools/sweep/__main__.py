"""Run a sweep: methods x configs x partitions x seeds.

The sweep is a file, see configs/sweeps/. Runs that are done are left as they are, unfinished ones
go on; the same command continues a sweep that was interrupted. One that fails is named, and the
others go on. It ends with the table of `tools.results`; exit code 1: some runs failed.
"""

import argparse
import sys
from pathlib import Path

from tools.methods import require_method
from tools.results.runs import MARK
from tools.sweep.schedule import State, check_lists, run_all, seconds_left, state_of
from tools.sweep.slurm import submit
from tools.sweep.spec import Planned, expand, read_sweep
from util.cli import exit_with_one_line, say_loading
from util.config.loading import load_config
from util.errors import UserError, duration
from util.parser import Parser
from util.paths import find


def main() -> None:
    options = command_line().parse_args()
    with exit_with_one_line():
        sweep = read_sweep(find(options.spec))
        planned = expand(sweep, options.spec)
        for one in {one.kind: one for one in planned}.values():
            require_method(one.method)
            load_config(one.config, one.overrides)
        say_loading()  # of all methods
        states = [state_of(one) for one in planned]
        if options.dry_run:
            show(states)
            return
        check_lists(states)
        if options.slurm is not None:
            print(submit(states, sweep.save_path, options.slurm))
            return
        failed = run(states, options.devices)
        table(planned)
    sys.exit(1 if failed else 0)


def show(states: list[State]) -> None:
    """The runs, how far they are, and what is left to pay."""
    # Here alone: they bring timm and all of a training.
    from engine.estimate import TITLE
    from tools.sweep.estimate import estimates

    for place, state in enumerate(states, start=1):
        print(title(place, states), state, sep="  ")
    seconds, unknown = seconds_left(states)
    todo = sum(not state.is_done for state in states)
    known = todo - len(unknown)
    by_epochs = f"; {duration(seconds)} on one device for {known}, by epochs of their kind"
    print(f"{len(states)} runs, {todo} not done{by_epochs * (known > 0)}")
    if unknown:
        print(f"for {len(unknown)} there are none to go by; {TITLE}", flush=True)
    for lines in estimates(unknown):
        print(lines, flush=True)


def run(states: list[State], devices: list[str]) -> list[Planned]:
    def say(place: int, what: str) -> None:
        print(title(place, states), what, sep="  ", flush=True)

    todo = []
    for place, state in enumerate(states, start=1):
        if state.is_done:
            say(place, str(state))
        else:
            todo.append((place, state.planned))
    failed = run_all(todo, devices, say)
    for planned in failed:
        print(f"failed: python {' '.join(planned.command)}")
    return failed


def title(place: int, states: list[State]) -> str:
    width = len(str(len(states)))
    folders = [str(state.planned.folder) for state in states]
    return f"[{place:>{width}}/{len(states)}] {folders[place - 1]:<{max(map(len, folders))}}"


def table(planned: list[Planned]) -> None:
    # Here, so that --help does not wait for pandas.
    from tools.results.collect import collect
    from tools.results.tables import as_text

    folders = [str(one.folder) for one in planned if (one.folder / MARK).exists()]
    try:
        print("", as_text(collect(folders)), sep="\n")
    except UserError as error:  # all have failed, which has been said
        print(f"\nno table: {error}")


def command_line() -> Parser:
    parser = Parser(
        __doc__,
        (
            "python -m tools.sweep configs/sweeps/shapes.yaml --dry-run",
            "python -m tools.sweep configs/sweeps/shapes.yaml --devices 0 1 2 3",
        ),
    )
    parser.add_argument("spec", type=Path, metavar="SPEC", help="YAML file, see configs/sweeps/")
    parser.add_argument(
        "--devices",
        nargs="+",
        default=["auto"],
        metavar="DEVICE",
        help="numbers of GPUs, or cpu: a run on each at a time; auto: one run at a time",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="list the runs and what they cost, and end"
    )
    parser.add_argument(
        "--slurm",
        nargs=argparse.REMAINDER,
        metavar="OPTION",
        help="submit an array of jobs; all that follows goes to sbatch (default: run here)",
    )
    return parser


if __name__ == "__main__":
    main()
