"""Predict images: index masks (PNG with the palette), overlays, and the areas of the classes."""

from util.interrupt import exit_on_ctrl_c

if __name__ == "__main__":
    exit_on_ctrl_c()  # also during the imports

import sys
from pathlib import Path

from inference.cli import checkpoint_and_config, checkpoint_parser
from inference.inputs import find_samples
from util.cli import exit_with_one_line, importing
from util.errors import print_error
from util.parser import Parser


def main() -> None:
    args = command_line().parse_args()
    with exit_with_one_line():
        args.checkpoint, config = checkpoint_and_config(args)
        images = find_samples(args.images, args.second, args.save_path, config.data)
        with importing():
            from inference.predicting import predict_images
        if errors := predict_images(args, config, images):
            for error in errors:
                print_error(f"error: {error}")
            sys.exit(1)


def command_line() -> Parser:
    parser = checkpoint_parser(
        __doc__,
        "python predict.py --checkpoint runs/mine/unimatch --images photos/ --save-path out/",
        "python predict.py --checkpoint hf:OWNER/NAME --images a.jpg b.jpg --save-path out/ "
        "--tta flip --overlays none",
    )
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="files or folders")
    parser.add_argument(
        "--second",
        type=Path,
        nargs="+",
        help="later images of pairs, with the same names (default: none)",
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
        help="format of the overlays, the masks over their images; none: write masks only",
    )
    parser.add_argument(
        "--confidence",
        nargs="?",
        const="confidence",
        choices=("confidence", "entropy"),
        help="also write confidence/ (probability of the predicted class; 255 is 1) or entropy/ "
        "(255: all classes equally probable), as 8-bit PNG (default: neither)",
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
    return parser


if __name__ == "__main__":
    main()
