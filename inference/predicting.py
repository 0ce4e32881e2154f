"""Prediction of image files, for predict.py."""

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

from dataset.bands import rgb_previews
from dataset.reader import read_dates, size_of
from inference.cli import is_set, same_network
from inference.geotiff import predict_raster
from inference.output_folder import collect_errors, folder_record, unfinished_images
from inference.outputs import PredictionWriter
from inference.predictor import Predictor, mode_for_size
from inference.raster import is_larger
from model.network import Network
from model.trained import load_trained
from util import distributed
from util.config.schema import Config
from util.errors import UserError, counted
from util.precision import warn_if_emulated


def predict_images(
    args: argparse.Namespace, config: Config, images: dict[str, list[Path]]
) -> list[UserError]:
    """Predict the images that have no files yet; print what was written, also after Ctrl-C.

    Returns the errors of the images that failed.

    Args:
        images: files by name; of a pair both dates.
    """
    device = distributed.choose_device(args.device)
    megapixels = 0 if args.geotiff else config.data.max_megapixels
    rasters = {name for name, files in images.items() if is_larger(files[0], megapixels)}
    names = ["values", "overlays", "confidence", "probabilities", "geotiff"]
    record = folder_record(args, config, names)  # before a training replaces the checkpoint
    warn_if_emulated(device, config.precision)
    network = load_trained(config, args.checkpoint, args.which, device)
    writer = PredictionWriter(args, config.data, rasters)
    missing = unfinished_images(images, lambda files: files, writer.files, writer.areas, record)
    writer.areas.start(missing)
    errors: list[UserError] = []
    modes: list[str] = []  # mode of each predicted image
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
    network: Network,
    name: str,
    files: list[Path],
    writer: PredictionWriter,
    config: Config,
    device: torch.device,
) -> str:
    """Predict an image or pair and write its files; return the prediction mode."""
    mode: str = config.evaluation.mode
    if name in writer.rasters:
        predict_raster(network, files, name, writer, config, device)
        return mode
    pixels, nodata_mask = read_dates(files, config.data)
    if not is_set("evaluation.mode", writer.args.set):
        mode = mode_for_size(config, size_of(pixels))
    probabilities = Predictor(network, config, device, mode).probabilities(pixels, files[0])
    writer.save(name, rgb_previews(pixels, config.data), probabilities, nodata_mask)
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
