"""Score a checkpoint: IoU of each class, mIoU, pixel accuracy, speed."""

from util.interrupt import exit_on_ctrl_c

if __name__ == "__main__":
    exit_on_ctrl_c()  # also during the imports

import argparse
import os
from pathlib import Path

from dataset.folders import require_sources
from inference.cli import checkpoint_and_config, checkpoint_parser, split_of
from util.cli import exit_with_one_line, importing
from util.errors import UserError
from util.io import check_target
from util.parser import Parser, at_least

BOUNDARY = 0.02
"""Default of --boundary-iou, as published."""


def main() -> None:
    args = command_line().parse_args()
    with exit_with_one_line():
        check_options(args)
        args.checkpoint, config = checkpoint_and_config(args)
        if args.surface_distance and config.evaluation.volume_pattern is None:
            raise UserError(
                "--surface-distance: the config defines no volumes. Fix: set "
                "evaluation.volume_pattern"
            )
        require_sources(split_of(config, args.split), config.data)
        with importing():
            from inference.scoring import score
            from util import distributed
            from util.log import log_to_console
        device = distributed.choose_device(args.device)
        with distributed.session(device), exit_with_one_line():
            log_to_console()
            score(args, config, device)


def command_line() -> Parser:
    parser = checkpoint_parser(
        __doc__,
        "python evaluate.py --checkpoint runs/mine/unimatch",
        "python evaluate.py --checkpoint runs/mine/unimatch --split test --tta flip "
        "--save-path scores/ --worst 20",
    )
    parser.add_argument(
        "--split",
        choices=("val", "test"),
        default="val",
        help="images to score: data.val or data.test",
    )
    parser.add_argument(
        "--json", type=Path, metavar="OUT", help="also write the scores as JSON (default: off)"
    )
    parser.add_argument(
        "--save-path",
        type=Path,
        metavar="OUT",
        help="new folder for scores.csv, confusion.csv, confusion.png and worst/ (default: none)",
    )
    parser.add_argument(
        "--worst",
        type=at_least(0),
        default=0,
        metavar="N",
        help="also pictures of the N images with the lowest mean IoU, in --save-path",
    )
    parser.add_argument(
        "--boundary-iou",
        type=float,
        nargs="?",
        const=BOUNDARY,
        metavar="SHARE",
        help="also boundary IoU, for pixels within SHARE of the image diagonal from a contour "
        f"(default: off; SHARE defaults to {BOUNDARY})",
    )
    parser.add_argument(
        "--surface-distance",
        action="store_true",
        help="also HD95 and average surface distance (ASD) of each class, over volumes",
    )
    return parser


def check_options(args: argparse.Namespace) -> None:
    """Raise `UserError` for invalid options, and for a --save-path that is not an empty folder."""
    if args.worst and not args.save_path:
        raise UserError("--worst: needs a folder for the pictures. Fix: add --save-path OUT")
    if args.boundary_iou is not None and not 0 < args.boundary_iou < 1:
        raise UserError(
            f"--boundary-iou: found {args.boundary_iou}, expected a share of the image's "
            f"diagonal, such as {BOUNDARY}"
        )
    if args.json:
        check_target(args.json, "evaluate.py", "--json")
    if args.save_path and os.path.lexists(args.save_path):
        folder = args.save_path
        if not folder.is_dir() or any(folder.iterdir()):
            raise UserError(f"--save-path {folder}: exists already. Fix: choose another folder")


if __name__ == "__main__":
    main()
