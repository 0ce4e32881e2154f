"""Predict images: index masks (PNG with the palette) and overlays."""

import os
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from dataset.files import SUFFIXES, open_image
from model.build import load_network
from util import dist
from util.command import checkpoint_parser, exit_with_one_line
from util.config import Config
from util.config_file import load_config
from util.errors import UserError
from util.evaluation import predict_mask
from util.picture import colour_mask, overlay, palette
from util.speed import use_layout


def main() -> None:
    parser = checkpoint_parser(__doc__)
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="files or folders")
    parser.add_argument(
        "--save-path", type=Path, required=True, help="folder for masks/, overlays/"
    )
    options = parser.parse_args()
    with exit_with_one_line():
        config = load_config(options.config, options.set)
        device = dist.choose_device(options.device)
        images = find_images(options.images)
        network = load_network(config.model, config.num_classes, options.checkpoint, options.which)
        use_layout(network.to(device), config)
        save_predictions(network, images, config, options.save_path, device)
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


def save_predictions(
    network: nn.Module, images: dict[str, Path], config: Config, folder: Path, device: torch.device
) -> None:
    """Write a mask and an overlay for each image, never over a file that is there."""
    kinds = ("masks", "overlays")
    for file in (folder / kind / f"{name}.png" for name in images for kind in kinds):
        if os.path.lexists(file):
            raise UserError(f"{file}: exists already; choose another folder")
    for name, path in tqdm(images.items(), disable=None, leave=False):
        image = open_image(path, config.data.image_range)
        mask = colour_mask(predict_mask(network, image, config, device), palette(config.data))
        for kind, picture in (("masks", mask), ("overlays", overlay(image, mask))):
            file = folder / kind / f"{name}.png"
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                picture.save(file)
            except OSError as error:
                raise UserError(f"{file}: cannot be written ({error})") from None


if __name__ == "__main__":
    main()
