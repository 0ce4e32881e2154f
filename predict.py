"""Predict images: index masks (PNG with the palette), overlays, and the areas of the classes."""

from util.interrupt import exit_on_ctrl_c

if __name__ == "__main__":
    exit_on_ctrl_c()  # also during the imports

import argparse
import sys
from pathlib import Path

from inference.cli import checkpoint_and_config, checkpoint_parser, same_network
from inference.inputs import find_dates, may_choose_windows
from util.cli import exit_with_one_line, importing
from util.config.schema import Config
from util.errors import UserError, counted
from util.parser import Parser


def main() -> None:
    options = command_line().parse_args()
    with exit_with_one_line():
        options.checkpoint, config = checkpoint_and_config(options)
        images = find_dates(options.images, options.second, options.save_path, config.data)
        if errors := predict_images(options, config, images):
            print(*errors, sep="\n")
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
        help="also confidence/: the predicted class's probability in 8 bits, 255 for 1; or "
        "entropy/: 0 for one certain class, 255 for equally probable classes (default: neither)",
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
    options: argparse.Namespace, config: Config, images: dict[str, list[Path]]
) -> list[UserError]:
    """Predict the images that have no files yet; print what was written, also after Ctrl-C.

    Returns the errors of the images that failed.

    Args:
        images: files by name; of a pair both dates.
    """
    with importing():
        from tqdm import tqdm

        from dataset.bands import rgb_previews
        from dataset.reader import read_dates, size_of
        from inference.geotiff import predict_raster
        from inference.output_folder import collect_errors, made_by, unfinished_images
        from inference.outputs import Writer
        from inference.predictor import Predictor, mode_for_size
        from inference.raster import is_larger
        from model.trained import load_trained
        from util import distributed
    device = distributed.choose_device(options.device)
    megapixels = 0 if options.geotiff else config.data.max_megapixels
    rasters = {name for name, files in images.items() if is_larger(files[0], megapixels)}
    network = load_trained(config, options.checkpoint, options.which, device)
    writer = Writer(options, config.data, rasters)
    names = ["values", "overlays", "confidence", "probabilities", "geotiff"]
    record = made_by(options, config, names)
    missing = unfinished_images(
        images, lambda files: files, writer.files, options.save_path, record
    )
    writer.start(missing)
    errors, done, large, interrupt = list[UserError](), 0, 0, None
    mode, may_choose = config.evaluation.mode, may_choose_windows(options)
    try:
        for name, files in tqdm(missing.items(), unit="image", disable=None, leave=False):
            with collect_errors(errors, files[0]):
                if name in rasters:
                    predict_raster(network, files, name, writer, config, device)
                else:
                    pixels, void = read_dates(files, config.data)
                    own = mode_for_size(config, size_of(pixels)) if may_choose else mode
                    predictor = Predictor(network, config, device, own)
                    probabilities = predictor.probabilities(pixels, files[0])
                    writer.save(name, rgb_previews(pixels, config.data), probabilities, void)
                    large += own != mode
            done += 1
    except KeyboardInterrupt as error:
        interrupt = error
        print(f"stopped with {len(missing) - done} to do; the same command continues")
    print_results(options, config, writer.kinds, done, len(errors), large)
    if interrupt:
        raise interrupt
    print(f"next     python export.py {same_network(options)} --format onnx --out model.onnx")
    return errors


def print_results(
    options: argparse.Namespace,
    config: Config,
    kinds: list[str],
    done: int,
    failed: int,
    large: int,
) -> None:
    """Print the numbers of images, and the written folders.

    Args:
        done: number of images, including `failed` ones.
        large: number of images in sliding windows because of their size.
    """
    if large:
        print(
            f"windows  {counted(large, 'image')} much larger than crops of {config.crop_size} "
            "pixels predicted in sliding windows; --set evaluation.mode=original predicts whole "
            "images"
        )
    failures = f", {failed} failed" * bool(failed)
    folders = ", ".join(f"{kind}/" for kind in kinds)
    masks = counted(done - failed, "mask")
    print(f"written  {masks}{failures}; {options.save_path}: {folders}, areas.csv")


if __name__ == "__main__":
    main()
