"""Predict images: index masks (PNG with the palette), overlays, and the areas of the classes."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

from dataset.files import SUFFIXES, open_image
from dataset.original import Original
from model.build import load_network
from util import dist
from util.areas import AreaTable
from util.command import checkpoint_parser, exit_with_one_line
from util.config import Config, Data
from util.config_file import load_config
from util.errors import UserError
from util.evaluation import predict_mask
from util.picture import colour_mask, mask_legend, overlay, save_picture, with_legend
from util.speed import use_layout


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
        config = load_config(options.config, options.set)
        device = dist.choose_device(options.device)
        images = find_images(options.images)
        network = load_network(config.model, config.num_classes, options.checkpoint, options.which)
        use_layout(network.to(device), config)
        writer = Writer(options.save_path, config.data, options.values, options.overlays)
        save_predictions(network, images, config, writer, device)
        print(f"{len(images)} masks in {options.save_path / 'masks'}")


def find_images(paths: list[Path]) -> dict[str, Path]:
    """Image files by the name (without suffix) that their mask will have."""
    found: dict[str, Path] = {}
    for path in paths:
        if not os.path.exists(path):  # False too for what can be no path
            raise UserError(f"--images {path}: no such file or folder")
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        for file in inside if path.is_dir() else [path]:
            name = str(
                (file.relative_to(path) if path.is_dir() else Path(file.name)).with_suffix("")
            )
            if found.setdefault(name, file) != file:
                raise UserError(
                    f"--images: {found[name]} and {file} would share the mask {name}.png"
                )
    if not found:
        raise UserError(f"--images {paths[0]}: holds no images ({', '.join(sorted(SUFFIXES))})")
    return found


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
        for file, picture in zip(self.files(name), self.pictures(image, mask), strict=True):
            save_picture(picture, file)


def save_predictions(
    network: nn.Module,
    images: dict[str, Path],
    config: Config,
    writer: Writer,
    device: torch.device,
) -> None:
    """Write a mask and an overlay for each image, and the areas of its classes."""
    for file in (file for name in images for file in writer.files(name)):
        if os.path.lexists(file):
            raise UserError(f"{file}: exists already; choose another folder")
    areas = AreaTable(writer.folder / "areas.csv", config.data.classes, images)
    for name, path in tqdm(images.items(), disable=None, leave=False):
        image = open_image(path, config.data.image_range)
        mask = predict_mask(network, image, config, device)
        areas.add(name, mask)
        writer.save(name, image, mask)


if __name__ == "__main__":
    main()
