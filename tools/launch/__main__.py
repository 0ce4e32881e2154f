"""Start a training in several processes, as torchrun does.

tools/train.sh and tools/val.sh use it. This is torchrun with three differences: a training that is
asked to stop gets the time it needs, one that fails ends with its own exit code and message, and
only one that was killed is restarted. Of torchrun's options it takes those below.
"""

import argparse
import os
import sys
from pathlib import Path

from util.cli import exit_with_one_line, importing
from util.errors import UserError
from util.parser import Parser
from util.paths import nearest


def main() -> None:
    options = command_line().parse_args()
    with exit_with_one_line():
        if not options.module and not os.path.exists(
            options.script
        ):  # False too for what can be no path
            raise UserError(f"{options.script}: no such script{nearest(options.script)}")
        with importing():
            from tools.launch.agent import launch
    sys.exit(launch())


def command_line() -> Parser:
    """The options that the project uses; torchrun parses them again."""
    parser = Parser(
        __doc__,
        (
            "python -m tools.launch --nproc_per_node 4 --master_port 29500 unimatch.py "
            "--config configs/pascal.yaml --save-path runs/pascal",
            "python -m tools.launch --standalone --max_restarts 3 unimatch.py "
            "--config configs/pascal.yaml --save-path runs/pascal",
        ),
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--nproc_per_node", default="1", help="processes on this machine, one for each GPU")
    add("--nnodes", default="1", help="number of machines")
    add("--node_rank", default="0", help="number of this machine, from 0")
    add("--master_addr", default="localhost", help="address of the first machine")
    add("--master_port", default="29500", help="free port of the first machine")
    add("--max_restarts", default="0", help="restarts after a process was killed")
    add("--standalone", action="store_true", help="one machine, any free port")
    add("-m", "--module", action="store_true", help="the script is named as a module")
    add("script", type=Path, help="script to run, such as unimatch.py")
    add("arguments", nargs=argparse.REMAINDER, help="arguments of the script")
    return parser


if __name__ == "__main__":
    main()
