"""Predict images: index masks (PNG with the palette), overlays, and the areas of the classes."""

from util.interrupt import quit_on_interrupt

if __name__ == "__main__":
    quit_on_interrupt()  # also during the imports

import sys
from pathlib import Path

from inference.cli import add_tta, checkpoint_of, checkpoint_parser, config_of
from inference.inputs import find_images, later_images
from util.cli import exit_with_one_line, importing
from util.parser import Parser


def main() -> None:
    options = command_line().parse_args()
    with exit_with_one_line():
        options.checkpoint = checkpoint_of(options)
        config = config_of(options)
        images = find_images(options.images, options.save_path)
        later = later_images(images, options.second, options.save_path, config.data)
        with importing():
            from inference.predicting import predict_images
        if faults := predict_images(options, config, images, later):
            print(*faults, sep="\n")
            sys.exit(1)


def command_line() -> Parser:
    parser = checkpoint_parser(
        __doc__,
        (
            "python predict.py --checkpoint runs/mine/unimatch --images photos/ --save-path out/",
            "python predict.py --checkpoint hf:OWNER/NAME --images a.jpg b.jpg --save-path out/ "
            "--tta flip --overlays none",
        ),
    )
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="files or folders")
    parser.add_argument(
        "--second",
        type=Path,
        nargs="+",
        help="for pairs, the later images, with the same names (default: none)",
    )
    parser.add_argument(
        "--save-path", type=Path, required=True, help="folder for masks/, overlays/, areas.csv"
    )
    parser.add_argument(
        "--values", action="store_true", help="write masks with the dataset's own values or colours"
    )
    parser.add_argument(
        "--overlays",
        choices=("jpg", "png", "none"),
        default="jpg",
        help="format of the masks over their images; none: write masks alone",
    )
    parser.add_argument(
        "--confidence",
        nargs="?",
        const="confidence",
        choices=("confidence", "entropy"),
        help="also confidence/: the predicted class's probability in 8 bits, 255 for 1; or "
        "entropy/: 0 where the network is sure, 255 where all classes are equally probable "
        "(default: neither)",
    )
    parser.add_argument(
        "--probabilities",
        action="store_true",
        help="also probabilities/*.npz: float16 [classes, height, width], named 'probabilities'",
    )
    parser.add_argument(
        "--geotiff",
        action="store_true",
        help="predict every TIFF in windows into a GeoTIFF with the same georeferencing (default: "
        "only those of more than data.max_megapixels)",
    )
    add_tta(parser)
    return parser


if __name__ == "__main__":
    main()
