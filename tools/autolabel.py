"""Label images with a checkpoint, and rank them for annotation.

Confident pixels get a pseudo-label, all others are ignored; the result is a labelled dataset with
its config. The ranking lists the most uncertain images first: label these next.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dataset.folders import MADE_BY, require_sources
from inference.cli import (
    ACQUISITIONS,
    checkpoint_and_config,
    checkpoint_config,
    checkpoint_parser,
    is_set,
)
from inference.inputs import find_images
from util.cli import exit_with_one_line, importing
from util.config.schema import Config
from util.errors import UserError, counted, shell_quoted
from util.io import require_folder_of
from util.parser import Parser, at_least
from util.starts import STARTS_FILE

if TYPE_CHECKING:
    from inference.autolabel import Autolabel, RankedImage


def main() -> None:
    args = command_line().parse_args()
    with exit_with_one_line():
        args.checkpoint, config = checkpoint_and_config(args)
        if args.threshold is None:
            args.threshold = config.conf_thresh
        check_options(args)
        images = find_images(args.images or (), args.out)
        if args.list:
            require_sources(args.list, config.data)
        with importing():
            from inference.autolabel import Autolabel, unlabelled_samples
            from inference.output_folder import folder_record, unfinished_images
            from model.trained import load_trained
            from util import distributed
            from util.precision import warn_if_emulated
        labels = Autolabel(args.out, config, args.threshold)
        samples, left_out = unlabelled_samples(config.data, images, args.list)
        if left_out:
            print(f"skipped  {counted(left_out, 'labelled, validation or test image')}")
        device = distributed.choose_device(args.device)
        record = folder_record(args, config, ["threshold"])  # before a training replaces the file
        warn_if_emulated(device, config.precision)
        network = load_trained(config, args.checkpoint, args.which, device)
        missing = unfinished_images(
            samples,
            lambda sample: sample.image_files,
            lambda name: [labels.mask_path(name)],
            labels.table,
            record,
        )
        may_choose_windows = not is_set("evaluation.mode", args.set)
        errors = labels.label(network, missing, device, may_choose_windows)
        if errors:
            print(*errors, sep="\n")
            failed = counted(len(errors), "image")
            raise UserError(
                f"{args.out}: no labels for {failed}, so no split files are written. Fix: "
                "repair or remove the files above and repeat the command, which keeps all masks"
            )
        ranking = labels.ranking(samples, args.acquisition)
        labels.require_labels(ranking)
        plain = checkpoint_config(args.checkpoint, args.config, args.set)  # no --tta
        write_results(labels, ranking, with_rule_of_class_weights(plain, args), args)


def with_rule_of_class_weights(config: Config, args: argparse.Namespace) -> Config:
    """Return the config with the rule of a run's `criterion.class_weights` in place of the numbers
    that the run counted in its masks: there are more masks now."""
    from tools.results.records import Start, read_records

    starts = read_records(args.checkpoint.parent / STARTS_FILE, Start)
    rule = starts[-1].class_weights if starts else None
    if args.config or is_set("criterion.class_weights", args.set) or not isinstance(rule, str):
        return config
    return config.with_class_weights(rule)


def write_results(
    labels: "Autolabel",
    ranking: "Sequence[RankedImage]",
    config: Config,
    args: argparse.Namespace,
) -> None:
    """Write the ranking, and the dataset with a copy of `config`; print what is written."""
    from inference.autolabel import write_ranking, write_selection

    if args.rank:
        write_ranking(args.rank, ranking, args.acquisition)
        images = counted(len(ranking), "image")
        print(f"ranking  {args.rank}: {images}, by {args.acquisition}")
    if args.select:
        root = write_selection(args.out, ranking, args.select)
        print(f"selected {args.out}: next.txt and rest.txt, paths below {root}")
    labelled, path = labels.write_dataset(ranking, config)
    share = sum(image.numbers["labelled"] for image in ranking) / len(ranking)
    print(f"labels   {counted(labelled, 'image')}, on {share:.1%} of an image's pixels (mean)")
    print(f"written  {args.out}: masks/, split files, {path.name}, {labels.table.path.name}")
    print(f"next     python -m tools.check_data --config {shell_quoted(path)}")


def command_line() -> Parser:
    parser = checkpoint_parser(
        __doc__,
        "python -m tools.autolabel --checkpoint runs/mine/unimatch --out labels/",
        "python -m tools.autolabel --checkpoint runs/mine/unimatch --images new/ --out labels/ "
        "--rank rank.csv --select 16",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--images", type=Path, nargs="+", help="files or folders of images (default: --list)"
    )
    source.add_argument(
        "--list", type=Path, help="split file of images below data.root (default: data.unlabeled)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder for masks/, split files, config.yaml and uncertainty.csv",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="least confidence of a pixel that gets a label (default: conf_thresh)",
    )
    parser.add_argument(
        "--rank",
        type=Path,
        metavar="CSV",
        help="also write the images there, most uncertain first (default: off)",
    )
    parser.add_argument(
        "--acquisition",
        choices=ACQUISITIONS,
        default="entropy",
        help="measure of uncertainty for the ranking, a mean over pixels with data",
    )
    parser.add_argument(
        "--select",
        type=at_least(1),
        metavar="N",
        help="write split files of the N most uncertain images (next.txt) and of the others "
        "(rest.txt) (default: off)",
    )
    return parser


def check_options(args: argparse.Namespace) -> None:
    """Raise `UserError` for invalid options."""
    if not 0 <= args.threshold <= 1:
        raise UserError(
            f"--threshold: found {args.threshold:g}, expected a probability, such as 0.95"
        )
    if args.rank:
        require_folder_of(args.rank, "--rank")
        if args.rank.exists() and not (args.out / MADE_BY).exists():
            raise UserError(
                f"--rank {args.rank}: exists already, and {args.out} is a new folder. Fix: "
                "choose another file, or move it away"
            )


if __name__ == "__main__":
    main()
