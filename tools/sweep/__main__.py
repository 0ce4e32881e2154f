"""Run a sweep: methods x configs x partitions x seeds.

A sweep is a YAML file, see configs/sweeps/. Finished runs are skipped, unfinished runs resume, and
a run that fails does not stop the others; the same command continues an interrupted sweep. The
results of all runs are printed as a table at the end. Exit code 1: some runs failed.
"""

import argparse
import sys
from pathlib import Path

from tools.methods import require_method
from tools.sweep.schedule import check_devices, check_split_files, run_all, states_of
from tools.sweep.slurm import submit
from tools.sweep.spec import expand, read_sweep
from util.cli import exit_with_one_line, importing
from util.config.loading import load_config
from util.errors import UserError
from util.interrupt import Interrupted
from util.parser import Parser
from util.paths import find_path


def main() -> None:
    args = command_line().parse_args()
    with exit_with_one_line():
        sweep = read_sweep(find_path(args.spec))
        runs = expand(sweep, args.spec)
        for run in {run.kind: run for run in runs}.values():
            require_method(run.method)
            load_config(run.config, run.overrides)
        with importing():  # PyTorch, which the methods' options need
            states = states_of(runs)
        if args.dry_run:
            from tools.sweep.estimate import print_estimates  # imports timm

            print_estimates(states)
        check_split_files(states)
        if args.dry_run:
            return
        if args.slurm is not None:
            print(submit(states, sweep.save_path, args.slurm))
            return
        if not all(state.is_done for state in states):
            check_devices(args.devices)
        failed, stopped = run_all(states, args.devices)
        for run in failed:
            print(f"failed: python {' '.join(run.command)}")
        from tools.results.tables import as_text, collect  # imports pandas

        if started := [str(run.folder) for run in runs if run.has_started]:
            try:
                print("", as_text(collect(started)), sep="\n")
            except UserError as error:  # all runs failed
                print(f"\nno table: {error}")
        if stopped:
            raise Interrupted
    sys.exit(1 if failed else 0)


def command_line() -> Parser:
    parser = Parser(
        __doc__,
        "python -m tools.sweep configs/sweeps/shapes.yaml --dry-run",
        "python -m tools.sweep configs/sweeps/shapes.yaml --devices 0 1 2 3",
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
