"""Files of a predicted image: the mask; overlay, confidence and probabilities on request."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from inference.mask_encoding import MaskEncoding
from inference.output_folder import ImageTable
from inference.overlay import (
    colour_mask,
    mask_legend,
    overlay,
    save_picture,
    side_by_side,
    with_legend,
)
from inference.predictor import confidence, entropy, to_mask
from util.config.data import Data
from util.io import make_folder, write_atomically

CONFIDENCES = {"confidence": confidence, "entropy": entropy}
VALUES_WITHOUT_DATA = {"confidence": 0, "entropy": 255}
"""Values of pixels without data in the confidence and entropy images."""


class PredictionWriter:
    """Writer of masks/, overlays/, confidence/ or entropy/, probabilities/ and areas.csv.

    Raises `UserError` for --values if the dataset's masks have no value for a class.

    Args:
        args: command line of predict.py.
        rasters: names of images that are predicted in windows and written as GeoTIFFs.
    """

    def __init__(self, args: argparse.Namespace, data: Data, rasters: set[str]):
        self.args = args
        self.data = data
        self.rasters = rasters
        self.folder: Path = args.save_path
        self.areas = ImageTable(self.folder / "areas.csv", ["width", "height", *data.classes])
        self.kinds = ["masks"]
        """Names of the folders to write."""
        if args.overlays != "none":
            self.kinds.append("overlays")
        if args.confidence is not None:
            self.kinds.append(args.confidence)
        if args.probabilities:
            self.kinds.append("probabilities")
        self.encodings = (
            {has_ignored: MaskEncoding(data, has_ignored) for has_ignored in (False, True)}
            if args.values
            else {}
        )

    def path(self, kind: str, name: str) -> Path:
        """Return the path of a file of an image; `kind`: its folder."""
        suffixes = {"overlays": f".{self.args.overlays}", "probabilities": ".npz"}
        suffix = suffixes.get(kind, ".tif" if name in self.rasters else ".png")
        return self.folder / kind / f"{name}{suffix}"

    def files(self, name: str) -> list[Path]:
        """Return the paths of all files of an image."""
        return [self.path(kind, name) for kind in self.kinds]

    def add_areas(self, name: str, shape: Sequence[int], pixels: np.ndarray) -> None:
        """Add height, width and pixels by class `[256]` of an image to areas.csv."""
        counts = pixels[: len(self.data.classes)].tolist()
        self.areas.add(name, [shape[1], shape[0], *counts])

    def save(
        self,
        name: str,
        images: Sequence[Image.Image],
        probabilities: Tensor,
        nodata_mask: np.ndarray | None = None,
    ) -> None:
        """Write all files of an image, or of both dates of a pair.

        Args:
            probabilities: class probabilities `[C, H, W]`.
            nodata_mask: `[H, W]`, bool: pixels without data, 255 in the mask; None if there are
                none.
        """
        mask, kind = to_mask(probabilities, nodata_mask), self.args.confidence
        self.add_areas(name, mask.shape, np.bincount(mask.ravel(), minlength=256))
        encoding = self.encodings.get(nodata_mask is not None)
        picture = encoding.mask(mask) if encoding else colour_mask(mask, self.data)
        save_picture(picture, self.path("masks", name))
        self.save_overlay(name, images, mask)
        if kind is not None:
            shade = confidence_bytes(probabilities, kind, nodata_mask)
            save_picture(Image.fromarray(shade), self.path(kind, name))
        if self.args.probabilities:
            half = probabilities.half().cpu().numpy()
            save_arrays(self.path("probabilities", name), probabilities=half)

    def save_overlay(self, name: str, images: Sequence[Image.Image], mask: np.ndarray) -> None:
        """Write the overlay if requested; for a pair, both dates with outlined changes."""
        if "overlays" not in self.kinds:
            return
        if len(images) == 1:
            picture = overlay(images[0], mask, self.data)
        else:
            picture = side_by_side([[overlay(image, mask, self.data, 0) for image in images]])
        picture = with_legend(picture, mask_legend(mask, self.data))
        save_picture(picture, self.path("overlays", name))


def confidence_bytes(
    probabilities: Tensor, kind: str, nodata_mask: np.ndarray | None
) -> np.ndarray:
    """Return confidence or entropy (`kind`) `[H, W]` as uint8, 255 for 1; `nodata_mask` as in
    `save`."""
    shade = (255 * CONFIDENCES[kind](probabilities)).round().byte().cpu().numpy()
    if nodata_mask is not None:
        shade[nodata_mask] = VALUES_WITHOUT_DATA[kind]
    return shade


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write an npz file as a whole; raises `UserError` when it cannot be written."""
    make_folder(path.parent)
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]
