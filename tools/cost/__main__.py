"""Estimate memory, hours and fitting GPUs of a training.

Needs neither data nor a GPU. Prints a Markdown table of configs and methods. Memory is in GiB.
Columns 8 to 80: the labelled images of a forward pass (micro_batch) that fit on a GPU of that many
GiB; whole: all of them, no: not one. RTX 3090 to H100: least time of 10 000 steps, by arithmetic
alone. Exit code 1: a cost cannot be estimated.
"""

import sys
from pathlib import Path

from tools.methods import methods_of, require_method
from util.cli import add_settings, exit_with_one_line, importing
from util.config.loading import load_config
from util.io import check_target
from util.parser import Parser, at_least


def main() -> None:
    args = command_line().parse_args()
    with exit_with_one_line():
        if args.json:
            check_target(args.json, "tools.cost", "--json")
        for path in args.configs:
            load_config(path, args.set)
            for name in methods_of(path, args.methods):
                require_method(name)
        with importing():
            from tools.cost.table import print_table
        sys.exit(print_table(args))


def command_line() -> Parser:
    parser = Parser(
        __doc__,
        "python -m tools.cost configs/pascal.yaml",
        "python -m tools.cost configs/pascal*.yaml --methods unimatch --processes 4",
    )
    parser.add_argument("configs", nargs="+", type=Path, metavar="CONFIG", help="YAML files")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["all"],
        metavar="all|NAME",
        help="scripts without .py; all: the method in the config's name (pascal_corrmatch.yaml), "
        "or else all methods that have no config of their own in the same folder",
    )
    add_settings(parser)
    parser.add_argument(
        "--processes",
        type=at_least(1),
        default=1,
        metavar="N",
        help="GPUs that share the images of a step; costs are per GPU",
    )
    parser.add_argument(
        "--json", type=Path, metavar="OUT", help="JSON file for all numbers (default: none)"
    )
    return parser


if __name__ == "__main__":
    main()
