"""Export a checkpoint's network: ONNX, TorchScript or safetensors.

The exported network predicts images, and its masks are compared with those of predict.py in
float32. If they differ at more than 0.1 % of the pixels of an image, nothing is written (exit
code 1).
"""

from util.interrupt import exit_on_ctrl_c

if __name__ == "__main__":
    exit_on_ctrl_c()  # also during the imports

import argparse
from pathlib import Path

from dataset.folders import require_sources
from inference.cli import checkpoint_and_config, checkpoint_parser
from util.cli import exit_with_one_line, importing
from util.errors import UserError
from util.io import require_folder_of, require_new
from util.optional import require_optional
from util.parser import Parser

EXPORT_FORMATS = ("onnx", "torchscript", "safetensors")
STEPS = ("normalisation", "resizing")
"""Steps that --outside leaves to the caller; names in `model.deploy`."""


def main() -> None:
    args = command_line().parse_args()
    with exit_with_one_line():
        check_options(args)
        args.checkpoint, config = checkpoint_and_config(args)
        if not args.images:
            try:
                require_sources(config.data.val, config.data)
            except UserError as error:
                if config.data.dates > 1:
                    raise
                raise UserError(f"{error}; or name images to compare on with --images") from None
        with importing():
            from inference.exporting import export
        export(args, config)


def command_line() -> Parser:
    parser = checkpoint_parser(
        __doc__,
        "python export.py --checkpoint runs/mine/unimatch --format onnx --out model.onnx",
        "python export.py --checkpoint runs/mine/unimatch --format torchscript --out model.ts "
        "--size 512 512 --images photos/a.jpg",
        predicts=False,
    )
    parser.add_argument(
        "--format", choices=EXPORT_FORMATS, required=True, help="format of the file"
    )
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument(
        "--outside",
        choices=STEPS,
        nargs="+",
        default=[],
        help="steps left to the caller: normalisation (else the input has the values of image "
        "files), resizing to a size that the network accepts",
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="one fixed size, for networks that cannot be exported for images of any size "
        "(default: any size)",
    )
    parser.add_argument(
        "--images",
        type=Path,
        nargs="+",
        help="image files to compare on (default: the first validation images)",
    )
    return parser


def check_options(args: argparse.Namespace) -> None:
    """Raise `UserError` for invalid options, an existing file, a missing library."""
    require_new(args.out)
    require_folder_of(args.out, "--out")
    if args.format == "safetensors" and (args.outside or args.size):
        raise UserError("--format safetensors: has weights only; --outside, --size do not apply")
    if args.format == "safetensors" and args.out.suffix != ".safetensors":
        raise UserError(f"--out {args.out}: expected a name that ends in .safetensors")
    if args.size and min(args.size) < 1:
        raise UserError(f"--size: found {args.size}, expected a height and a width in pixels")
    if args.format == "onnx":
        require_optional("--format onnx", "onnx", "onnxscript", "onnxruntime")


if __name__ == "__main__":
    main()
