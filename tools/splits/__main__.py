"""Fetch, verify and draw split files.

They are splits/<dataset>/<partition>/{labeled,unlabeled}.txt and splits/<dataset>/val.txt; see
splits/README.md.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

from dataset.protocols import lists_of, read_protocols, select_lists
from dataset.samples import Sample
from dataset.split_files import Split, read_split_file, write_split_files
from tools.splits import folds, partition
from tools.splits.fetch import fetch, verify
from tools.splits.layout import write_derived_lists
from util.cli import exit_with_one_line
from util.config.data import Data
from util.config.loading import load_config
from util.errors import UserError, counted
from util.parser import Parser
from util.tables import text_table

TARGET = "DATASET[/PARTITION]"
EXAMPLES = {
    "list": ["", "pascal"],
    "fetch": ["pascal/92", "pascal cityscapes/1_16 --source PrevMatch"],
    "verify": ["", "pascal/92"],
    "generate": ["pascal/92 --root data/pascal", "pascal/val --root data/pascal"],
    "make": [
        "--config configs/mine.yaml --labeled 1/8 --out splits/mine/8 --stratify",
        "--root data/mine --labeled 92 --val 0.1 --out splits/mine/92",
    ],
}


def main() -> int:
    """Run a subcommand; returns the exit code."""
    options = command_line().parse_args()
    with exit_with_one_line():
        return options.run(options) or 0


def show_protocols(options: argparse.Namespace) -> None:
    """Show the published lists."""
    lists = lists_of(options.dataset) if options.dataset else read_protocols()
    rows = [
        [f"{p.dataset}/{p.name}", p.fingerprint.entries, p.fingerprint.sha256[:12],
         ", ".join(p.sources)] for p in lists
    ]  # fmt: skip
    print(text_table([["list", "entries", "SHA-256", "published by"], *rows]))


def fetch_published(options: argparse.Namespace) -> None:
    """Download published lists, or copy them from a clone."""
    chosen = [p for target in options.target for p in select_lists(target, options.source)]
    for line in fetch(list(dict.fromkeys(chosen)), options.splits, options.clone):
        print(line, flush=True)


def verify_lists(options: argparse.Namespace) -> int:
    """Compare the lists on disk with the published ones; exit code 1 when one differs."""
    lists = verify(options.splits, options.target)
    rows = [[one.file, one.entries, one.verdict] for one in lists]
    print(text_table([["list", "entries", "is"], *rows]))
    return int(any(one.differs for one in lists))


def generate_lists(options: argparse.Namespace) -> None:
    """Write lists that follow from the files: validation images, and unlabelled images."""
    remarks = write_derived_lists(options.target, options.root, options.splits, options.names)
    print(*remarks, sep="\n")


def make_partition(options: argparse.Namespace) -> None:
    """Draw a new partition of any dataset, or folds for cross-validation."""
    if options.labeled is None and options.folds is None:
        raise UserError("make: expected --labeled, a share or number of images, or --folds")
    labeled = options.labeled
    if labeled is not None:
        labeled = partition.share_or_count(labeled, "--labeled")
    val = partition.share_or_count(options.val, "--val")
    data = None if options.config is None else load_config(options.config, options.set).data
    samples, kept = _samples_to_draw(options, data)
    classes = partition.read_classes(data, samples) if data and options.stratify else None
    if options.folds is not None:
        make_folds(options, samples, labeled, classes)
        return
    drawn = partition.draw(samples, labeled, val, options.seed, classes)
    print(*write_split_files(drawn.lists(options.out)), sep="\n")
    if kept:
        number = counted(len(kept.samples), "validation image")
        print(f"{kept.name}: {number}, as the config has them")
    if classes and data:
        print(f"labelled images show {partition.coverage(drawn.labeled, classes, data.classes)}")


def make_folds(
    options: argparse.Namespace,
    samples: Sequence[Sample],
    labeled: Fraction | None,
    classes: partition.ClassesByImage | None,
) -> None:
    """Write the lists of each fold and, with a config, the sweep over them."""
    if options.val != "0":
        raise UserError(f"--val {options.val}: each fold is validated on once; leave it out")
    if not str(options.out).isprintable():
        raise UserError(
            f"--out {options.out}: expected printable characters of UTF-8, as sweep.yaml names it"
        )
    drawn = folds.draw_folds(samples, options.folds, labeled, options.seed, classes)
    lists = {
        file: lines
        for number, fold in enumerate(drawn, start=1)
        for file, lines in fold.lists(options.out / f"fold_{number}").items()
    }
    print(*write_split_files(lists), sep="\n")
    if options.config:
        print(folds.write_sweep(Path(options.config), options.set, lists, options.out))


REQUIRED_BESIDE = {"images": "root", "masks": "root", "set": "config", "stratify": "config"}
"""Options of `make` that have an effect only with another one."""


def _samples_to_draw(
    options: argparse.Namespace, data: Data | None
) -> tuple[Sequence[Sample], Split | None]:
    """Return the samples to draw from, and the config's validation images."""
    for option, needed in REQUIRED_BESIDE.items():
        if getattr(options, option) and not getattr(options, needed):
            raise UserError(f"make: --{option} needs --{needed}")
    if data is not None:
        if options.val != "0":
            raise UserError(f"--val {options.val}: the config has validation images; leave it out")
        return partition.read_config(data, folds=options.folds is not None)
    if options.list:
        return read_split_file(options.list, masks=True).samples, None
    folders = options.images or "images", options.masks or "masks"
    return partition.pair_files(options.root, *folders), None


def command_line() -> Parser:
    parser = Parser(
        __doc__,
        (
            "python -m tools.splits fetch pascal/92",
            "python -m tools.splits make --config configs/mine.yaml --labeled 1/8 --out splits/8",
        ),
    )
    parser.add_argument("--splits", type=Path, default=Path("splits"), help="folder of the lists")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], int | None]
    ) -> argparse.ArgumentParser:
        shown = [f"python -m tools.splits {name} {example}" for example in EXAMPLES[name]]
        added = commands.add_parser(name, help=run.__doc__, description=run.__doc__, examples=shown)
        added.set_defaults(run=run)
        return added

    _add_published(command)
    _add_make(command("make", make_partition))
    return parser


def _add_published(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the subcommands for published lists."""
    add = command("list", show_protocols).add_argument
    add("dataset", nargs="?", help="such as pascal (default: all)")

    add = command("fetch", fetch_published).add_argument
    add("target", nargs="+", metavar=TARGET, help="pascal/92 (and val), pascal/val, all of pascal")
    add("--from", type=Path, dest="clone", metavar="DIR", help="a clone of the repository "
        "(default: download)")  # fmt: skip
    add("--source", metavar="REPOSITORY", help="where their lists differ: PrevMatch, "
        "for example (default: any)")  # fmt: skip

    add = command("verify", verify_lists).add_argument
    add("target", nargs="?", default="", metavar=TARGET, help="or the path of a split file "
        "(default: all)")  # fmt: skip

    add = command("generate", generate_lists).add_argument
    add("target", metavar="DATASET/PARTITION", help="pascal/92: val.txt, and as unlabeled.txt what "
        "labeled.txt lacks; pascal/all: all training images; pascal/val")  # fmt: skip
    add("--root", type=Path, required=True, help="folder of the data")
    add("--names", type=Path, help="names of pascal's validation images, if not in ROOT/ImageSets/"
        "Segmentation/val.txt nor in splits/pascal/val.txt (default: those)")  # fmt: skip


def _add_make(make: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand for new partitions."""
    add = make.add_argument
    add("--out", type=Path, required=True, help="folder for the lists")
    source = make.add_mutually_exclusive_group(required=True).add_argument
    source("--config", help="take its root, lists and classes; its validation images stay "
        "(default: --root or --list)")  # fmt: skip
    source("--root", type=Path, help="folder of the data (default: --config or --list)")
    source("--list", type=Path, help="lines 'image mask' to draw from "
        "(default: --config or --root)")  # fmt: skip
    add("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="override its "
        "keys")  # fmt: skip
    add("--labeled", help="share of the training images (1/8, 0.1) or number (92); with --folds by "
        "default all others")  # fmt: skip
    add("--folds", type=int, metavar="K", help="for cross-validation: K folders fold_1, ... whose "
        "validation images are disjoint and together all labelled ones, with --config also those "
        "of its val; and sweep.yaml over them (default: one partition)")  # fmt: skip
    add("--val", default="0", help="share or number to hold out for validation; 0: none")
    add("--seed", type=int, default=0, help="seed of the draw; a smaller partition of "
        "one seed is part of a larger one")  # fmt: skip
    add("--stratify", action="store_true", help="label images that show all classes of "
        "--config first")  # fmt: skip
    add("--images", help="folder below ROOT, or a pattern such as train/*_image.png; the part at * "
        "pairs images and masks (default: images)")  # fmt: skip
    add("--masks", help="the same for masks (default: masks)")


if __name__ == "__main__":
    sys.exit(main())
