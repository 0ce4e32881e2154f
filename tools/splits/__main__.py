"""Fetch, verify and draw split files.

They are splits/<dataset>/<partition>/{labeled,unlabeled}.txt and splits/<dataset>/val.txt; see
splits/README.md.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

from dataset.protocols import read_protocols, select_split_files, split_files_of
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


def main() -> int:
    """Run a subcommand; returns the exit code."""
    args = command_line().parse_args()
    with exit_with_one_line():
        return args.run(args) or 0


def show_protocols(args: argparse.Namespace) -> None:
    """Show the published split files."""
    lists = split_files_of(args.dataset) if args.dataset else read_protocols()
    rows = [
        [f"{p.dataset}/{p.name}", p.fingerprint.entries, p.fingerprint.sha256[:12],
         ", ".join(p.sources)] for p in lists
    ]  # fmt: skip
    print(text_table([["split file", "entries", "SHA-256", "published by"], *rows]))


def fetch_published(args: argparse.Namespace) -> None:
    """Download published split files, or copy them from a clone."""
    chosen = [p for target in args.target for p in select_split_files(target, args.source)]
    for line in fetch(list(dict.fromkeys(chosen)), args.splits, args.clone):
        print(line, flush=True)


def verify_lists(args: argparse.Namespace) -> int:
    """Compare the split files on disk with the published ones; exit code 1 if one differs."""
    lists = verify(args.splits, args.target)
    rows = [[one.file, one.entries, one.verdict] for one in lists]
    print(text_table([["split file", "entries", "is"], *rows]))
    return int(any(one.differs for one in lists))


def generate_lists(args: argparse.Namespace) -> None:
    """Write split files that follow from the data: validation images, and unlabelled images."""
    remarks = write_derived_lists(args.target, args.root, args.splits, args.names)
    print(*remarks, sep="\n")


def make_partition(args: argparse.Namespace) -> None:
    """Draw a new partition of any dataset, or folds for cross-validation."""
    if args.labeled is None and args.folds is None:
        raise UserError("make: expected --labeled, a share or number of images, or --folds")
    labeled = args.labeled
    if labeled is not None:
        labeled = partition.share_or_count(labeled, "--labeled")
    val = partition.share_or_count(args.val, "--val")
    data = None if args.config is None else load_config(args.config, args.set).data
    samples, kept = _samples_to_draw(args, data)
    classes = partition.read_classes(data, samples) if data and args.stratify else None
    if args.folds is not None:
        make_folds(args, samples, labeled, classes)
        return
    drawn = partition.draw(samples, labeled, val, args.seed, classes)
    print(*write_split_files(drawn.lists(args.out)), sep="\n")
    if kept:
        number = counted(len(kept.samples), "validation image")
        print(f"{kept.name}: {number}, as the config has them")
    if classes and data:
        print(f"labelled images show {partition.coverage(drawn.labeled, classes, data.classes)}")


def make_folds(
    args: argparse.Namespace,
    samples: Sequence[Sample],
    labeled: Fraction | None,
    classes: partition.ClassesByImage | None,
) -> None:
    """Write the lists of each fold and, with a config, the sweep over them."""
    if args.val != "0":
        raise UserError(f"--val {args.val}: each fold is validated on once. Fix: leave it out")
    if not str(args.out).isprintable():
        raise UserError(
            f"--out {args.out}: expected printable characters of UTF-8, as sweep.yaml names it"
        )
    drawn = folds.draw_folds(samples, args.folds, labeled, args.seed, classes)
    lists = {
        file: lines
        for number, fold in enumerate(drawn, start=1)
        for file, lines in fold.lists(args.out / f"fold_{number}").items()
    }
    print(*write_split_files(lists), sep="\n")
    if args.config:
        print(folds.write_sweep(Path(args.config), args.set, lists, args.out))


REQUIRED_BESIDE = {"images": "root", "masks": "root", "set": "config", "stratify": "config"}
"""Options of `make` that have an effect only with another one."""


def _samples_to_draw(
    args: argparse.Namespace, data: Data | None
) -> tuple[Sequence[Sample], Split | None]:
    """Return the samples to draw from, and the config's validation images."""
    for option, needed in REQUIRED_BESIDE.items():
        if getattr(args, option) and not getattr(args, needed):
            raise UserError(f"make: --{option} needs --{needed}")
    if data is not None:
        if args.val != "0":
            raise UserError(
                f"--val {args.val}: the config has validation images. Fix: leave it out"
            )
        return partition.read_config(data, folds=args.folds is not None)
    if args.list:
        return read_split_file(args.list, masks=True).samples, None
    folders = args.images or "images", args.masks or "masks"
    return partition.pair_files(args.root, *folders), None


def command_line() -> Parser:
    parser = Parser(
        __doc__,
        "python -m tools.splits fetch pascal/92",
        "python -m tools.splits make --config configs/mine.yaml --labeled 1/8 --out splits/8",
    )
    parser.add_argument(
        "--splits", type=Path, default=Path("splits"), help="folder of the split files"
    )
    add_command = parser.subcommands("tools.splits")

    def command(
        name: str, run: Callable[[argparse.Namespace], int | None], *examples: str
    ) -> Parser:
        added = add_command(name, str(run.__doc__), *examples)
        added.set_defaults(run=run)
        return added

    _add_published(command)
    _add_make(
        command(
            "make",
            make_partition,
            "--config configs/mine.yaml --labeled 1/8 --out splits/mine/8 --stratify",
            "--root data/mine --labeled 92 --val 0.1 --out splits/mine/92",
        )
    )
    return parser


def _add_published(command: Callable[..., Parser]) -> None:
    add = command("list", show_protocols, "", "pascal").add_argument
    add("dataset", nargs="?", help="such as pascal (default: all)")

    fetching = "pascal/92", "pascal cityscapes/1_16 --source PrevMatch"
    add = command("fetch", fetch_published, *fetching).add_argument
    add("target", nargs="+", metavar=TARGET, help="pascal/92 (and val), pascal/val, all of pascal")
    add("--from", type=Path, dest="clone", metavar="DIR", help="a clone of the repository "
        "(default: download)")  # fmt: skip
    add("--source", metavar="REPOSITORY", help="repository, such as PrevMatch, where "
        "several publish different split files of one name (default: any)")  # fmt: skip

    add = command("verify", verify_lists, "", "pascal/92").add_argument
    add("target", nargs="?", default="", metavar=TARGET, help="or the path of a split file "
        "(default: all)")  # fmt: skip

    generating = [f"{target} --root data/pascal" for target in ("pascal/92", "pascal/val")]
    add = command("generate", generate_lists, *generating).add_argument
    add("target", metavar="DATASET/PARTITION", help="pascal/92: val.txt, and as unlabeled.txt what "
        "labeled.txt lacks; pascal/all: all training images; pascal/val")  # fmt: skip
    add("--root", type=Path, required=True, help="folder of the data")
    add("--names", type=Path, help="names of pascal's validation images, if not in ROOT/ImageSets/"
        "Segmentation/val.txt nor in splits/pascal/val.txt (default: those)")  # fmt: skip


def _add_make(make: Parser) -> None:
    add = make.add_argument
    add("--out", type=Path, required=True, help="folder for the split files")
    source = make.add_mutually_exclusive_group(required=True).add_argument
    source("--config", help="use its root, split files and classes; its validation split stays "
        "(default: --root or --list)")  # fmt: skip
    source("--root", type=Path, help="folder of the data (default: --config or --list)")
    source("--list", type=Path, help="lines 'image mask' to draw from "
        "(default: --config or --root)")  # fmt: skip
    add("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="override keys "
        "of --config")  # fmt: skip
    add("--labeled", help="share of the training images (1/8, 0.1) or number (92); required "
        "without --folds (with it, default: all others)")  # fmt: skip
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
