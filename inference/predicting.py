"""The work of predict.py: predict images and write the results."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from dataset.bands import pictures
from dataset.reader import read_valid_dates, size_of
from inference.geotiff import predict_raster
from inference.inputs import made_by, may_choose_windows, noting, to_do
from inference.outputs import PRODUCTS, Writer
from inference.predictor import Predictor, config_for_size
from inference.raster import is_larger
from model.trained import load_trained
from util import distributed
from util.config.schema import Config
from util.errors import UserError, counted, quoted


def predict_images(
    options: argparse.Namespace,
    config: Config,
    images: dict[str, Path],
    later: dict[str, list[Path]],
) -> list[UserError]:
    """Predict the images that have no mask yet; print what was written, also after Ctrl-C.

    Returns the errors of the images that failed.

    Args:
        images: files by name; of pairs the earlier one.
        later: of pairs, the later file by name.
    """
    device = distributed.choose_device(options.device)
    megapixels = 0 if options.geotiff else config.data.max_megapixels
    rasters = {name for name, path in images.items() if is_larger(path, megapixels)}
    network = load_trained(config, options.checkpoint, options.which, device)
    writer = Writer(options, config.data, rasters)
    left = to_do(
        images, writer.files, writer.folder, made_by(options, config, *PRODUCTS, "geotiff")
    )
    dates = {name: [path, *later.get(name, [])] for name, path in left.items()}
    results: list[UserError | None] = []
    windows, interrupt = may_choose_windows(options), None
    try:
        for error in save_predictions(network, dates, config, writer, device, windows):
            results.append(error)
    except KeyboardInterrupt as error:
        interrupt = error
        print(f"stopped with {len(left) - len(results)} to do; the same command continues")
    errors = [error for error in results if error]
    failed = f", {len(errors)} failed" * bool(errors)
    folders = ", ".join(f"{kind}/" for kind in writer.kinds)
    count = counted(len(results) - len(errors), "mask")
    print(f"written  {count}{failed}; {options.save_path}: {folders}, areas.csv")
    if interrupt:
        raise interrupt
    print(f"next     python export.py --checkpoint {quoted(options.checkpoint)} --format onnx "
          "--out model.onnx")  # fmt: skip
    return errors


def save_predictions(
    network: nn.Module,
    images: dict[str, list[Path]],
    config: Config,
    writer: Writer,
    device: torch.device,
    windows: bool,
) -> Iterator[UserError | None]:
    """Predict and write images one by one; yields the error of each, or None.

    Args:
        images: files by name, of a pair both dates.
        windows: images much larger than crops are predicted in sliding windows.
    """
    large = 0
    writer.start(images)
    for name, files in tqdm(images.items(), unit="image", disable=None, leave=False):
        errors: list[UserError] = []
        with noting(errors, files[0]):
            if name in writer.rasters:
                predict_raster(network, files, name, writer, config, device)
            else:
                pixels, void = read_valid_dates(files, config.data)
                own = config_for_size(config, size_of(pixels)) if windows else config
                probabilities = Predictor(network, own, device).probabilities(pixels)
                writer.save(name, pictures(pixels, config.data), probabilities, void)
                large += own is not config
        yield errors[0] if errors else None
    if large:
        print(
            f"windows  {counted(large, 'image')} much larger than crops of {config.crop_size} "
            "pixels predicted in sliding windows; --set evaluation.mode=original predicts whole "
            "images"
        )
