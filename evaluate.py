"""Score a checkpoint: scores of each class, mIoU, pixel accuracy, speed."""

from util.interrupt import quit_on_interrupt

if __name__ == "__main__":
    quit_on_interrupt()  # also during the imports

import argparse
import json
import os
from pathlib import Path

from inference.cli import add_tta, checkpoint_of, checkpoint_parser, config_of, require_split
from util.cli import exit_with_one_line, importing
from util.errors import UserError
from util.io import write_text
from util.parser import Parser

SHARE = 0.02
"""Default of --boundary-iou, as published."""


def main() -> None:
    options = command_line().parse_args()
    with exit_with_one_line():
        check(options)
        options.checkpoint = checkpoint_of(options)
        config = config_of(options)
        if options.surface_distance and config.evaluation.volume_pattern is None:
            raise UserError(
                "--surface-distance: the config names no volumes. Fix: set "
                "evaluation.volume_pattern"
            )
        require_split(config, options.split)
        with importing():
            from inference.scoring import say_what_is_written, score
            from util import distributed
            from util.log import say_to_console
        device = distributed.choose_device(options.device)
        with distributed.session(device), exit_with_one_line():
            say_to_console()
            scores = score(config, options, device)
            if distributed.is_main():
                if options.json:
                    text = json.dumps(scores, indent=1) + "\n"
                    write_text(options.json, text, f"--json {options.json}")
                say_what_is_written(options)


def command_line() -> Parser:
    parser = checkpoint_parser(
        __doc__,
        (
            "python evaluate.py --checkpoint runs/mine/unimatch",
            "python evaluate.py --checkpoint runs/mine/unimatch --split test --tta flip "
            "--save-path scores/ --worst 20",
        ),
    )
    add_tta(parser)
    parser.add_argument(
        "--split", choices=("val", "test"), default="val", help="images to score: data.val or .test"
    )
    parser.add_argument(
        "--json", type=Path, metavar="OUT", help="also write the scores as JSON (default: not)"
    )
    parser.add_argument(
        "--save-path",
        type=Path,
        metavar="OUT",
        help="new folder for scores.csv, confusion.csv, confusion.png and worst/ (default: none)",
    )
    parser.add_argument(
        "--worst",
        type=int,
        default=0,
        metavar="N",
        help="put pictures of the N images of the lowest mean IoU into --save-path",
    )
    parser.add_argument(
        "--boundary-iou",
        type=float,
        nargs="?",
        const=SHARE,
        metavar="SHARE",
        help="also IoU along outlines, within this share of the image's diagonal (default: not; "
        f"{SHARE} without a SHARE)",
    )
    parser.add_argument(
        "--surface-distance",
        action="store_true",
        help="also HD95 and average surface distance of each class over volumes",
    )
    return parser


def check(options: argparse.Namespace) -> None:
    """Raise `UserError` for invalid options, and for a folder that is not empty."""
    if options.worst and not options.save_path:
        raise UserError("--worst: needs a folder for the pictures; add --save-path OUT")
    if options.worst < 0:
        raise UserError(f"--worst: found {options.worst}, expected a number of images")
    if options.boundary_iou is not None and not 0 < options.boundary_iou < 1:
        raise UserError(
            f"--boundary-iou: found {options.boundary_iou}, expected a share of the image's "
            f"diagonal, such as {SHARE}"
        )
    if options.save_path and os.path.lexists(options.save_path):
        folder = options.save_path
        if not folder.is_dir() or any(folder.iterdir()):
            raise UserError(f"--save-path {folder}: exists already; choose another folder")


if __name__ == "__main__":
    main()
