"""Predict images: index masks (PNG with the palette), overlays, and the areas of the classes."""

from util.interrupt import exit_on_ctrl_c

if __name__ == "__main__":
    exit_on_ctrl_c()  # also during the imports

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from inference.cli import checkpoint_and_config, checkpoint_parser, is_set, same_network
from inference.inputs import find_samples
from util.cli import exit_with_one_line, importing
from util.config.schema import Config
from util.errors import UserError, counted, print_error
from util.parser import Parser

if TYPE_CHECKING:
    import torch

    from inference.outputs import Writer
    from model.network import Network


def main() -> None:
    args = command_line().parse_args()
    with exit_with_one_line():
        args.checkpoint, config = checkpoint_and_config(args)
        images = find_samples(args.images, args.second, args.save_path, config.data)
        if errors := predict_images(args, config, images):
            for error in errors:
                print_error(f"error: {error}")
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


def predict_images(
    args: argparse.Namespace, config: Config, images: dict[str, list[Path]]
) -> list[UserError]:
    """Predict the images that have no files yet; print what was written, also after Ctrl-C.

    Returns the errors of the images that failed.

    Args:
        images: files by name; of a pair both dates.
    """
    with importing():
        from tqdm import tqdm

        from inference.output_folder import collect_errors, folder_record, unfinished_images
        from inference.outputs import Writer
        from inference.raster import is_larger
        from model.trained import load_trained
        from util import distributed
    device = distributed.choose_device(args.device)
    megapixels = 0 if args.geotiff else config.data.max_megapixels
    rasters = {name for name, files in images.items() if is_larger(files[0], megapixels)}
    names = ["values", "overlays", "confidence", "probabilities", "geotiff"]
    record = folder_record(args, config, names)  # before a training replaces the checkpoint
    network = load_trained(config, args.checkpoint, args.which, device)
    writer = Writer(args, config.data, rasters)
    missing = unfinished_images(images, lambda files: files, writer.files, writer.areas, record)
    writer.areas.start(missing)
    errors: list[UserError] = []
    modes: list[str] = []  # of the predicted images
    try:
        for name, files in tqdm(missing.items(), unit="image", disable=None, leave=False):
            with collect_errors(errors, files[0]):
                modes.append(predict_one(network, name, files, writer, config, device))
    except KeyboardInterrupt:
        left = counted(len(missing) - len(modes) - len(errors), "image")
        print(f"stopped; {left} left; the same command continues")
        print_results(args, config, writer.kinds, modes, len(errors))
        raise
    print_results(args, config, writer.kinds, modes, len(errors))
    if modes or not missing:
        print(f"next     python export.py {same_network(args)} --format onnx --out model.onnx")
    return errors


def predict_one(
    network: "Network",
    name: str,
    files: list[Path],
    writer: "Writer",
    config: Config,
    device: "torch.device",
) -> str:
    """Predict an image or pair and write its files; return the prediction mode."""
    from dataset.bands import rgb_previews
    from dataset.reader import read_dates, size_of
    from inference.geotiff import predict_raster
    from inference.predictor import Predictor, mode_for_size

    mode: str = config.evaluation.mode
    if name in writer.rasters:
        predict_raster(network, files, name, writer, config, device)
        return mode
    pixels, void = read_dates(files, config.data)
    if not is_set("evaluation.mode", writer.args.set):
        mode = mode_for_size(config, size_of(pixels))
    probabilities = Predictor(network, config, device, mode).probabilities(pixels, files[0])
    writer.save(name, rgb_previews(pixels, config.data), probabilities, void)
    return mode


def print_results(
    args: argparse.Namespace, config: Config, kinds: list[str], modes: list[str], failed: int
) -> None:
    """Print the numbers of images, and the written folders.

    `modes`: of the predicted images; `failed`: number of the others.
    """
    if large := sum(mode != config.evaluation.mode for mode in modes):
        print(
            f"windows  {counted(large, 'image')} much larger than crops of "
            f"{config.crop_size} pixels were predicted in sliding windows; "
            "--set evaluation.mode=original predicts whole images"
        )
    failures = f", {failed} failed" if failed else ""
    folders = ", ".join(f"{kind}/" for kind in kinds)
    masks = counted(len(modes), "mask")
    print(f"written  {masks}{failures}; {args.save_path}: {folders}, areas.csv")


if __name__ == "__main__":
    main()
