"""The work of predict.py: masks of images, and what else is asked for."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from dataset.bands import pictures
from dataset.reader import read_valid_dates, size_of
from inference.geotiff import predict_raster
from inference.inputs import made_by, may_choose_windows, noting, to_do
from inference.outputs import Products, Writer
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
    """Predict the images that have no mask yet, and say what was written, also after Ctrl-C;
    returns what is wrong with the images that failed.

    `images`, `later`: files by name, of pairs the earlier and the later one.
    """
    device = distributed.choose_device(options.device)
    megapixels = 0 if options.geotiff else config.data.max_megapixels
    rasters = {name for name, path in images.items() if is_larger(path, megapixels)}
    network = load_trained(config, options.checkpoint, options.which, device)
    products = Products(*(getattr(options, name) for name in Products._fields))
    writer = Writer(options.save_path, config.data, products, rasters)
    record = made_by(options, config, *Products._fields, "geotiff")
    left = to_do(images, writer.files, writer.folder, record)
    if skipped := len(images) - len(left):
        print(f"skipped  {counted(skipped, 'image')} with masks already")
    dates = {name: [path, *later.get(name, [])] for name, path in left.items()}
    results: list[UserError | None] = []
    windows = may_choose_windows(options)
    try:
        for fault in save_predictions(network, dates, config, writer, device, windows):
            results.append(fault)
    except KeyboardInterrupt:
        print(f"stopped with {len(left) - len(results)} to do; the same command goes on")
        say_what_is_written(options, results)
        raise
    say_what_is_written(options, results)
    print(f"next     python export.py --checkpoint {quoted(options.checkpoint)} --format onnx "
          "--out model.onnx")  # fmt: skip
    return [fault for fault in results if fault]


def say_what_is_written(options: argparse.Namespace, results: Sequence[UserError | None]) -> None:
    """Print how many masks the command wrote, how many images failed, and where the files are.

    results: of each image that was tried, what is wrong with it.
    """
    failed = sum(fault is not None for fault in results)
    folders = ["masks/", *["overlays/"] * (options.overlays != "none")]
    folders += [f"{options.confidence}/"] * (options.confidence is not None)
    folders += ["probabilities/"] * options.probabilities
    count = f"{counted(len(results) - failed, 'mask')}{f', {failed} failed' * (failed > 0)}"
    print(f"written  {count}; {options.save_path}: {', '.join(folders)}, areas.csv")


def save_predictions(
    network: nn.Module,
    images: dict[str, list[Path]],
    config: Config,
    writer: Writer,
    device: torch.device,
    windows: bool,
) -> Iterator[UserError | None]:
    """Write what was asked for of each image, and the areas of its classes; yields after each image
    what is wrong with it, if it has none.

    `images`: files by name, those of both dates of a pair.
    `windows`: images much larger than crops go through the network in parts, not whole.
    """
    large = 0
    writer.start(images)
    for name, files in tqdm(images.items(), unit="image", disable=None, leave=False):
        faults: list[UserError] = []
        with noting(faults, files[0]):
            if name in writer.rasters:
                predict_raster(network, files, name, writer, config, device)
            else:
                pixels, void = read_valid_dates(files, config.data)
                own = config_for_size(config, size_of(pixels)) if windows else config
                probabilities = Predictor(network, own, device).probabilities(pixels)
                writer.save(name, pictures(pixels, config.data), probabilities, void)
                large += own is not config
        yield faults[0] if faults else None
    if large:
        print(
            f"{large} images are much larger than crops of {config.crop_size} pixels and were "
            "predicted in sliding windows; --set evaluation.mode=original predicts them whole"
        )
