"""Start a training in several processes, as torchrun does.

tools/train.sh and tools/val.sh use this command. It differs from torchrun in three points: after
a request to stop, a training may take any time to save; a training that fails ends with its own
exit code and message; a training restarts only after one of its processes was killed.
"""

import argparse
import os
import sys
from pathlib import Path

from util.cli import exit_with_one_line, importing
from util.errors import UserError
from util.interrupt import exit_on_sigterm, exiting_on_sigterm
from util.parser import Parser, at_least
from util.paths import nearest_hint


def main() -> None:
    args = command_line().parse_args()
    exit_on_sigterm()
    with exit_with_one_line():
        if not args.module and not os.path.exists(args.script):  # also for impossible paths
            raise UserError(f"{args.script}: no such script{nearest_hint(args.script)}")
        check_options(args)
        with importing():
            from tools.launch.processes import Launch
        with exiting_on_sigterm():
            sys.exit(Launch(args).run())


def command_line() -> Parser:
    """Return the parser; its options are a subset of torchrun's."""
    parser = Parser(
        __doc__,
        "python -m tools.launch --nproc_per_node 4 --master_port 29500 unimatch.py "
        "--config configs/pascal.yaml --save-path runs/pascal",
        "python -m tools.launch --standalone --max_restarts 3 unimatch.py "
        "--config configs/pascal.yaml --save-path runs/pascal",
        allow_abbrev=False,
    )
    add, positive = parser.add_argument, at_least(1)
    add("--nproc_per_node", type=positive, default=1, help="processes on this machine, one per GPU")
    add("--nnodes", type=positive, default=1, help="number of machines")
    add("--node_rank", type=int, default=0, help="number of this machine, from 0")
    add("--master_addr", default="localhost", help="address of the first machine")
    add("--master_port", type=int, default=29500, help="free port of the first machine")
    add("--max_restarts", type=int, default=0, help="restarts after a process was killed")
    add("--standalone", action="store_true", help="one machine, any free port")
    add("-m", "--module", action="store_true", help="the script is given as a module name")
    add("script", type=Path, help="script to run, such as unimatch.py")
    add("arguments", nargs=argparse.REMAINDER, help="arguments of the script")
    return parser


def check_options(args: argparse.Namespace) -> None:
    """Raise `UserError` for impossible numbers of machines, and ports."""
    if not 0 <= args.node_rank < args.nnodes:
        raise UserError(
            f"NODE_RANK {args.node_rank}: expected 0 to {args.nnodes - 1} (NNODES is {args.nnodes})"
        )
    if args.standalone and args.nnodes > 1:
        raise UserError(f"--standalone: found --nnodes {args.nnodes}, expected one machine")
    if not 0 <= args.master_port <= 65535:
        raise UserError(f"--master_port: found {args.master_port}, expected 0 to 65535")


if __name__ == "__main__":
    main()
