"""Predict images: index masks (PNG with the palette), overlays, and the areas of the classes."""

import sys
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from dataset.bands import pictures
from dataset.reader import read_valid_dates, size_of
from inference.cli import add_tta, checkpoint_of, checkpoint_parser, config_of
from inference.geotiff import predict_raster
from inference.inputs import (
    find_images,
    later_images,
    made_by,
    may_choose_windows,
    noting,
    to_do,
)
from inference.outputs import Products, Writer
from inference.predictor import Predictor, config_for_size
from inference.raster import is_larger
from model.trained import load_trained
from util import distributed
from util.cli import exit_with_one_line
from util.config.schema import Config
from util.errors import UserError


def main() -> None:
    parser = checkpoint_parser(__doc__)
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="files or folders")
    parser.add_argument(
        "--second", type=Path, nargs="+", help="of pairs, the later images, of the same names"
    )
    parser.add_argument(
        "--save-path", type=Path, required=True, help="folder for masks/, overlays/, areas.csv"
    )
    parser.add_argument(
        "--values", action="store_true", help="masks of the dataset's own values or colours"
    )
    parser.add_argument("--overlays", choices=("jpg", "png", "none"), default="jpg")
    parser.add_argument(
        "--confidence",
        nargs="?",
        const="confidence",
        choices=("confidence", "entropy"),
        help="also confidence/: the predicted class's probability in 8 bits, 255 for 1; or "
        "entropy/: 0 where the network is sure, 255 where all classes are equally probable",
    )
    parser.add_argument(
        "--probabilities",
        action="store_true",
        help="also probabilities/*.npz: float16 [classes, height, width], named 'probabilities'",
    )
    parser.add_argument(
        "--geotiff",
        action="store_true",
        help="predict every TIFF by windows into a GeoTIFF that lies where it lies (default: those "
        "of more than data.max_megapixels)",
    )
    add_tta(parser)
    options = parser.parse_args()
    with exit_with_one_line():
        options.checkpoint = checkpoint_of(options)
        config = config_of(options)
        device = distributed.choose_device(options.device)
        images = find_images(options.images, options.save_path)
        later = later_images(images, options.second, options.save_path, config.data)
        megapixels = 0 if options.geotiff else config.data.max_megapixels
        rasters = {name for name, path in images.items() if is_larger(path, megapixels)}
        network = load_trained(config, options.checkpoint, options.which, device)
        products = Products(*(getattr(options, name) for name in Products._fields))
        writer = Writer(options.save_path, config.data, products, rasters)
        record = made_by(options, config, *Products._fields, "geotiff")
        left = to_do(images, writer.files, writer.folder, record)
        if len(left) < len(images):
            print(f"{len(images) - len(left)} images have their masks already")
        dates = {name: [path, *later.get(name, [])] for name, path in left.items()}
        faults = save_predictions(
            network, dates, config, writer, device, windows=may_choose_windows(options)
        )
        print(f"{len(images) - len(faults)} masks in {options.save_path / 'masks'}")
        if faults:
            print(*faults, sep="\n")
            sys.exit(1)


def save_predictions(
    network: nn.Module,
    images: dict[str, list[Path]],
    config: Config,
    writer: Writer,
    device: torch.device,
    windows: bool,
) -> list[UserError]:
    """Write what was asked for of each image, and the areas of its classes; returns what is wrong
    with the images that have none.

    `images`: files by name, those of both dates of a pair.
    `windows`: images much larger than crops go through the network in parts, not whole.
    """
    faults: list[UserError] = []
    large = 0
    writer.start(images)
    for name, files in tqdm(images.items(), disable=None, leave=False):
        with noting(faults, files[0]):
            if name in writer.rasters:
                predict_raster(network, files, name, writer, config, device)
                continue
            pixels, void = read_valid_dates(files, config.data)
            own = config_for_size(config, size_of(pixels)) if windows else config
            probabilities = Predictor(network, own, device).probabilities(pixels)
            writer.save(name, pictures(pixels, config.data), probabilities, void)
            large += own is not config
    if large:
        print(
            f"{large} images are much larger than crops of {config.crop_size} pixels and were "
            "predicted in sliding windows; --set evaluation.mode=original predicts them whole"
        )
    return faults


if __name__ == "__main__":
    main()
