"""What a prediction leaves: a mask, and beside it what was asked for."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from inference.image_table import ImageTable
from inference.mask_encoding import Original
from inference.overlay import (
    colour_mask,
    mask_legend,
    overlay,
    save_picture,
    side_by_side,
    with_legend,
)
from inference.predictor import to_mask
from inference.uncertainty import confidence, entropy
from util.config.data import Data
from util.config.types import IGNORE
from util.io import make_folder, write_atomically

CONFIDENCES = {"confidence": confidence, "entropy": entropy}
UNSURE = {"confidence": 0, "entropy": 255}
"""What is written where there are no data."""


class Products(NamedTuple):
    """What is asked for."""

    values: bool = False
    """Masks of the dataset's own values or colours instead of class indices."""
    overlays: str = "none"
    """jpg, png or none."""
    confidence: str | None = None
    """A key of `CONFIDENCES`."""
    probabilities: bool = False


class Writer:
    """Writes them into folders of a folder: masks/, overlays/, confidence/ or entropy/,
    probabilities/, and areas.csv; never over a file that is there.

    Raises `UserError` where masks cannot hold every class.
    """

    def __init__(self, folder: Path, data: Data, products: Products, rasters: set[str]):
        self.folder, self.data, self.products, self.rasters = folder, data, products, rasters
        self.original = Original(data) if products.values else None

    def path(self, kind: str, name: str) -> Path:
        """Where the masks, overlays, ... of an image are; those that are predicted by windows
        (`rasters`) have GeoTIFFs."""
        plain = {"overlays": f".{self.products.overlays}", "probabilities": ".npz"}
        suffix = plain.get(kind, ".tif" if name in self.rasters else ".png")
        return self.folder / kind / f"{name}{suffix}"

    def files(self, name: str) -> list[Path]:
        """The files of an image."""
        products = self.products
        kinds = {
            "masks": True,
            "overlays": products.overlays != "none",
            str(products.confidence): products.confidence is not None,
            "probabilities": products.probabilities and name not in self.rasters,
        }
        return [self.path(kind, name) for kind, wanted in kinds.items() if wanted]

    def start(self, images: Iterable[str]) -> None:
        """Open areas.csv; `images`: names of those that will be saved."""
        columns = ["width", "height", *self.data.classes]
        self.areas = ImageTable(self.folder / "areas.csv", columns, images)

    def add_areas(self, name: str, shape: Sequence[int], pixels: np.ndarray) -> None:
        """Add an image of a height and width with its pixels by class `[256]`; before its files are
        written, as an image that has these is done."""
        counts = pixels[: len(self.data.classes)].tolist()
        self.areas.add(name, [shape[1], shape[0], *counts])

    def save(
        self,
        name: str,
        images: Sequence[Image.Image],
        probabilities: Tensor,
        void: np.ndarray | None = None,
    ) -> None:
        """Write all files of an image, or of both dates of a pair, from its class probabilities
        `[C, H, W]`; `void`: `[H, W]`, bool, where there are no data, 255 in the mask."""
        mask, products, original = to_mask(probabilities), self.products, self.original
        if void is not None:
            mask[void] = IGNORE
            original = original and Original(self.data, ignoring=True)
        self.add_areas(name, mask.shape, np.bincount(mask.ravel(), minlength=256))
        shown = original.mask(mask) if original else colour_mask(mask, self.data)
        save_picture(shown, self.path("masks", name))
        if products.overlays != "none":
            self.save_overlay(name, images, mask)
        if products.confidence is not None:
            shade = to_bytes(CONFIDENCES[products.confidence](probabilities))
            if void is not None:
                shade[void] = UNSURE[products.confidence]
            save_picture(Image.fromarray(shade), self.path(products.confidence, name))
        if products.probabilities:
            half = probabilities.half().cpu().numpy()
            save_arrays(self.path("probabilities", name), probabilities=half)

    def save_overlay(self, name: str, images: Sequence[Image.Image], mask: np.ndarray) -> None:
        """The mask over its image; of a pair both dates, in which changes are outlined."""
        if len(images) == 1:
            made = overlay(images[0], mask, self.data)
        else:
            made = side_by_side([[overlay(image, mask, self.data, 0) for image in images]])
        save_picture(with_legend(made, mask_legend(mask, self.data)), self.path("overlays", name))


def to_bytes(values: Tensor) -> np.ndarray:
    """Values in [0, 1] `[H, W]` as uint8, 255 for 1."""
    return (255 * values).round().byte().cpu().numpy()


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write an npz, whole or not at all; raises `UserError` when it cannot be written."""
    make_folder(path.parent)
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]
