"""Make downloads or folders of your own ready to train.

`python -m tools.prepare COMMAND --help` explains a command: init for data of your own, or the name
of a dataset.
"""

import os
from collections.abc import Callable
from pathlib import Path

from tools.prepare.official.acdc import ACDC
from tools.prepare.official.ade20k import ADE20K
from tools.prepare.official.camvid import CAMVID
from tools.prepare.official.change_pairs import LEVIR, WHU
from tools.prepare.official.cityscapes import CITYSCAPES
from tools.prepare.official.coco import COCO
from tools.prepare.official.pascal import PASCAL
from tools.prepare.official.run import Dataset, prepare
from tools.prepare.own import init
from util.cli import exit_with_one_line
from util.parser import Parser, at_least

DATASETS = {
    "pascal": PASCAL,
    "cityscapes": CITYSCAPES,
    "coco": COCO,
    "ade20k": ADE20K,
    "camvid": CAMVID,
    "acdc": ACDC,
    "levir": LEVIR,
    "whu": WHU,
}


def main() -> None:
    parser = Parser(
        __doc__,
        "python -m tools.prepare pascal --source downloads/ --root data/pascal",
        "python -m tools.prepare init --images data/mine/images --masks data/mine/masks "
        "--out configs/mine.yaml",
    )
    command = parser.subcommands("tools.prepare")
    own = command(
        "init",
        str(init.__doc__),
        "--images data/mine/images --masks data/mine/masks --out configs/mine.yaml",
        "--images data/mine --image-pattern '*_image.png' --mask-pattern '*_mask.png' "
        "--classes background,road --out configs/mine.yaml",
    )
    init.add_arguments(own)
    own.set_defaults(run=init.run)
    for name, dataset in DATASETS.items():
        add_dataset(command, name, dataset)
    args = parser.parse_args()
    with exit_with_one_line():
        args.run(args)


def add_dataset(command: Callable[..., Parser], name: str, dataset: Dataset) -> None:
    """Add a dataset's subcommand; like others it sets `run`, which gets the parsed options."""
    source = "--source downloads/"
    parser = command(name, str(dataset.about), source, f"{source} --root /disk/{name} --partial")
    parser.add_argument("--source", type=Path, required=True, help="folder with the downloads")
    parser.add_argument("--root", type=Path, default=Path("data", name), help="folder to fill")
    parser.add_argument(
        "--jobs",
        type=at_least(1),
        default=os.cpu_count() or 1,
        help="threads; by default one per core",
    )
    parser.add_argument(
        "--partial", action="store_true", help="make all files that incomplete downloads allow"
    )
    parser.set_defaults(run=lambda o: prepare(dataset, o.source, o.root, o.jobs, o.partial))


if __name__ == "__main__":
    main()
