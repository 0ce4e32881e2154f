"""Write generated shapes, single images or pairs.

Textured scenes in which colour and texture carry no class information.
"""

from inspect import signature
from pathlib import Path

from tools.make_shapes.files import generate
from util.cli import exit_with_one_line
from util.parser import Parser

OPTIONS = {
    "labeled": "number of training images with a mask",
    "unlabeled": "number of training images without one",
    "val": "number of validation images",
    "size": "side of the images, in pixels",
    "seed": "seed of the scenes",
}


def main() -> None:
    parser = Parser(
        __doc__,
        "python -m tools.make_shapes",
        "python -m tools.make_shapes --pairs --root data/shapes_pairs --labeled 16",
    )
    parser.add_argument(
        "--root",
        type=Path,
        help="folder to write (default: data/shapes, data/shapes_pairs or data/shapes_simple)",
    )
    parser.add_argument(
        "--pairs",
        action="store_true",
        help="two images of each place, and what changed between them",
    )
    parser.add_argument(
        "--simple",
        action="store_true",
        help="three classes without clutter, as in the quickstart",
    )
    for name, text in OPTIONS.items():
        default = signature(generate).parameters[name].default
        parser.add_argument(f"--{name}", type=int, default=default, help=text)
    args = parser.parse_args()
    with exit_with_one_line():
        kind = "_pairs" * args.pairs + "_simple" * args.simple
        args.root = args.root or Path(f"data/shapes{kind}")
        generate(**vars(args))
        counts = f"{args.labeled} labelled, {args.unlabeled} unlabelled, {args.val} validation"
        print(f"dataset  {args.root}: {counts} {'pairs' if args.pairs else 'images'}")


if __name__ == "__main__":
    main()
