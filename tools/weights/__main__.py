"""List, fetch, convert and check pretrained weights.

Weights go to pretrained/<backbone>.pth, where training reads them.
"""

import sys
from pathlib import Path

from model.files import PRETRAINED_FOLDER
from util.cli import exit_with_one_line, importing
from util.parser import Parser


def main() -> int:
    """Run a subcommand; return the exit code."""
    args = command_line().parse_args()
    with exit_with_one_line():
        with importing():
            from tools.weights.files import fetch_weights, identify_files, list_weights
        if args.command == "check":
            return identify_files(args)
        {"list": list_weights, "fetch": fetch_weights}[args.command](args)
    return 0


def command_line() -> Parser:
    parser = Parser(
        __doc__,
        "python -m tools.weights list",
        "python -m tools.weights fetch resnet101s",
    )
    add_command = parser.subcommands("tools.weights")

    def command(name: str, text: str, *examples: str) -> Parser:
        added = add_command(name, text, *examples)
        added.add_argument(
            "--folder", type=Path, default=PRETRAINED_FOLDER, help="folder of the weights"
        )
        return added

    command(
        "list",
        "List the published files of the backbones that the configs use.",
        "",
        "--folder /data/pretrained",
    )
    fetch = command(
        "fetch",
        "Download the weights of a backbone, or convert a file, into the form that training reads.",
        "resnet101s",
        "resnet50s --from downloads/resnet50.pth",
    )
    fetch.add_argument("backbone", help="value of model.backbone, such as resnet101s")
    fetch.add_argument("--from", type=Path, dest="file", metavar="FILE", help="convert this "
        "file, of torchvision, timm, OpenMMLab, DINOv2 or DINOv3 (default: download)")  # fmt: skip
    check = command(
        "check",
        "Identify files of weights, and name missing entries; exit code 1 unless training can read "
        "each file unchanged.",
        "",
        "downloads/resnet50.pth --backbone resnet50s",
    )
    check.add_argument(
        "target", nargs="*", help="files or backbones (default: all files in the folder)"
    )
    check.add_argument("--backbone", help="backbone for which the files are meant (default: any)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
