"""Make data ready to train, from official downloads or from folders of one's own.

Run from the repository root; `python -m tools.prepare COMMAND --help`.
"""

import argparse
import os
from pathlib import Path

from tools.prepare.official import acdc, ade20k, camvid, cityscapes, coco, levir, pascal, whu
from tools.prepare.official.run import prepare
from tools.prepare.own import init
from util.cli import exit_with_one_line

DATASETS = {
    "pascal": pascal,
    "cityscapes": cityscapes,
    "coco": coco,
    "ade20k": ade20k,
    "camvid": camvid,
    "acdc": acdc,
    "levir": levir,
    "whu": whu,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    text = str(init.__doc__)
    command = commands.add_parser("init", help=text.partition("\n")[0], description=text)
    init.add_arguments(command)
    command.set_defaults(run=init.run)
    for name in DATASETS:
        add_dataset(commands, name)
    options = parser.parse_args()
    with exit_with_one_line():
        options.run(options)


def add_dataset(commands: argparse._SubParsersAction, name: str) -> None:
    """A dataset's subcommand; like any other it sets `run`, which gets the parsed options."""
    dataset = DATASETS[name]
    text = str(dataset.__doc__)
    parser = commands.add_parser(name, help=text.partition("\n")[0], description=text)
    parser.add_argument("--source", type=Path, required=True, help="folder with the downloads")
    parser.add_argument(
        "--root", type=Path, default=Path("data", name), help="folder to fill, %(default)s"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="threads, one per core"
    )
    parser.add_argument(
        "--partial", action="store_true", help="make what can be made of incomplete downloads"
    )
    parser.set_defaults(run=lambda o: prepare(dataset, o.source, o.root, o.jobs, o.partial))


if __name__ == "__main__":
    main()
