"""Predict images: index masks (PNG with the palette), overlays, and the areas of the classes."""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

from dataset.bands import picture, read_bands
from dataset.files import image_size
from dataset.folders import names_by_stem
from dataset.original import Original
from dataset.reader import size_of
from model.build import load_trained
from util import dist
from util.areas import AreaTable
from util.command import checkpoint_parser, config_of, exit_with_one_line, lack_of_memory
from util.config import Config, Data
from util.errors import UserError
from util.inference import predict_mask, wants_windows
from util.picture import colour_mask, mask_legend, overlay, save_picture, with_legend
from util.writing import write_text


def main() -> None:
    parser = checkpoint_parser(__doc__)
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="files or folders")
    parser.add_argument(
        "--save-path", type=Path, required=True, help="folder for masks/, overlays/, areas.csv"
    )
    parser.add_argument(
        "--values", action="store_true", help="masks of the dataset's own values or colours"
    )
    parser.add_argument("--overlays", choices=("jpg", "png", "none"), default="jpg")
    options = parser.parse_args()
    with exit_with_one_line():
        config = config_of(options)
        device = dist.choose_device(options.device)
        images = find_images(options.images, options.save_path)
        network = load_trained(config, options.checkpoint, options.which, device)
        writer = Writer(options.save_path, config.data, options.values, options.overlays)
        left = to_do(images, writer, made_by(options, config))
        if len(left) < len(images):
            print(f"{len(images) - len(left)} images have their masks already")
        whole = any(setting.startswith("evaluation.mode") for setting in options.set)
        faults = save_predictions(network, left, config, writer, device, windows=not whole)
        print(f"{len(images) - len(faults)} masks in {options.save_path / 'masks'}")
        if faults:
            print(*faults, sep="\n")
            sys.exit(1)


def find_images(paths: list[Path], out: Path) -> dict[str, Path]:
    """Image files by the name (without suffix) that their mask will have; what lies in `out`, and
    what is hidden, is left out."""
    found: dict[str, Path] = {}
    for path in paths:
        if not os.path.exists(path):  # False too for what can be no path
            raise UserError(f"--images {path}: no such file or folder")
        inside = [path.name]
        if folder := path.is_dir():
            inside = list(names_by_stem(path, skip=path / os.path.relpath(out, path)).values())
        for file in inside:
            name, image = os.path.splitext(file)[0], path / file if folder else path
            if found.setdefault(name, image) != image:
                raise UserError(
                    f"--images: {found[name]} and {image} would share the mask {name}.png"
                )
    return found


def made_by(options: argparse.Namespace, config: Config) -> str:
    """What decides how a mask looks: the same text means the same masks."""
    file = options.checkpoint.stat()
    record = {
        "checkpoint": str(options.checkpoint.resolve()),
        "bytes": file.st_size,
        "modified": file.st_mtime,
        "which": options.which,
        "values": options.values,
        "overlays": options.overlays,
        "config": config.model_dump(mode="json"),
    }
    return json.dumps(record, indent=1) + "\n"


def to_do(images: dict[str, Path], writer: "Writer", record: str) -> dict[str, Path]:
    """The images whose files are not there yet; notes in the folder what makes them.

    Raises `UserError` where files are in the way that another command made.
    """
    path = writer.folder / "made_by.json"
    missing = {
        name: image
        for name, image in images.items()
        if not all(os.path.lexists(file) for file in writer.files(name))
    }
    if path.exists():
        if path.read_text(encoding="utf-8") != record:
            raise UserError(
                f"{path}: these predictions were made with another checkpoint, config or options; "
                "choose another folder"
            )
        return missing
    for file in (file for name in images for file in writer.files(name)):
        if os.path.lexists(file):
            raise UserError(f"{file}: exists already; choose another folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path.parent}: cannot be made ({error})") from None
    write_text(path, record)
    return images


class Writer:
    """Writes what a prediction leaves: never over a file that is there.

    Args:
        values: whether masks hold the dataset's own values or colours instead of class indices.
        overlays: jpg, png or none.
    """

    def __init__(self, folder: Path, data: Data, values: bool, overlays: str):
        self.folder, self.data, self.overlays = folder, data, overlays
        self.original = Original(data) if values else None

    def files(self, name: str) -> list[Path]:
        """The files of an image: its mask, and its overlay."""
        mask = self.folder / "masks" / f"{name}.png"
        overlay = self.folder / "overlays" / f"{name}.{self.overlays}"
        return [mask] if self.overlays == "none" else [mask, overlay]

    def pictures(self, image: Image.Image, mask: np.ndarray) -> Iterator[Image.Image]:
        """What these files hold, for class indices `[H, W]`."""
        yield self.original.mask(mask) if self.original else colour_mask(mask, self.data)
        if self.overlays != "none":
            yield with_legend(overlay(image, mask, self.data), mask_legend(mask, self.data))

    def save(self, name: str, image: Image.Image, mask: np.ndarray) -> None:
        for file, made in zip(self.files(name), self.pictures(image, mask), strict=True):
            save_picture(made, file)


def save_predictions(
    network: nn.Module,
    images: dict[str, Path],
    config: Config,
    writer: Writer,
    device: torch.device,
    windows: bool,
) -> list[UserError]:
    """Write a mask and an overlay for each image, and the areas of its classes; returns what is
    wrong with the images that have none.

    `windows`: images much larger than crops go through the network in parts, not whole.
    """
    in_windows, faults, large = windowed(config), [], 0
    areas = AreaTable(writer.folder / "areas.csv", config.data.classes, images)
    for name, path in tqdm(images.items(), disable=None, leave=False):
        try:
            pixels = read_bands(path, config.data)
            apart = windows and is_large(size_of(pixels), config)
            mask = predict_mask(network, pixels, in_windows if apart else config, device)
        except UserError as error:
            faults.append(error)
            continue
        except (MemoryError, RuntimeError) as error:
            if lack_of_memory(error) is None:
                raise
            size = "{}x{}".format(*image_size(path))
            hint = "--set evaluation.mode=sliding_window needs less, the less the smaller crop_size"
            faults.append(UserError(f"{path}: out of memory for {size} pixels; {hint}"))
            continue
        large += apart
        areas.add(name, mask)
        writer.save(name, picture(pixels, config.data), mask)
    if large:
        print(
            f"{large} images are much larger than crops of {config.crop_size} pixels and were "
            "predicted in sliding windows; --set evaluation.mode=original predicts them whole"
        )
    return faults


def is_large(size: tuple[int, int], config: Config) -> bool:
    """Whether an image that would be predicted whole is much larger than the network has seen."""
    return config.evaluation.mode == "original" and wants_windows(max(size), config.crop_size)


def windowed(config: Config) -> Config:
    """The config with prediction in sliding windows."""
    evaluation = config.evaluation.model_copy(update={"mode": "sliding_window"})
    return config.model_copy(update={"evaluation": evaluation})


if __name__ == "__main__":
    main()
