"""Segmentation of images with a trained network, for use in Python programs."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps

from dataset import tiff
from dataset.bands import choose_bands, clean, image_values, read_bands, to_range, union_of_masks
from inference.cli import checkpoint_config
from inference.predictor import Predictor, to_mask
from model.files import find_checkpoint, network_in
from model.trained import load_trained
from util import distributed
from util.errors import UserError
from util.precision import is_emulated

ImageLike = str | os.PathLike | Image.Image | np.ndarray
"""A file, a PIL image, or an array `[H, W]` or `[H, W, bands]` with the values of a file; pixels
that a masked array masks in all bands have no data."""


class Segmentation(NamedTuple):
    """The prediction of one image."""

    mask: np.ndarray
    """Class indices `[H, W]`, uint8; 255 where a raster has no data (of a PIL image: by its nodata
    value or alpha, not by mask pages or files)."""
    probabilities: np.ndarray
    """Class probabilities `[C, H, W]`, float32; they sum to 1."""
    classes: list[str]
    """Class names, by index."""


class Segmenter:
    """A trained network that segments images.

    >>> segmenter = Segmenter.load("runs/cells")
    >>> mask = segmenter.predict("cell.png").mask

    Predicting a file sets `PIL.Image.MAX_IMAGE_PIXELS = None`, no limit, in the whole process;
    `data.max_megapixels` limits its images instead.
    """

    def __init__(self, predictor: Predictor):
        self.predictor, self.config = predictor, predictor.config

    @classmethod
    def load(
        cls,
        checkpoint: str | os.PathLike,
        which: str | None = None,
        device: str | torch.device = "auto",
        config: str | os.PathLike | None = None,
    ) -> "Segmenter":
        """Load a checkpoint file, a run directory (its best checkpoint), a published folder, or
        `hf:OWNER/NAME` on the Hugging Face hub.

        Args:
            which: the network in the checkpoint; by default, the teacher `model_ema` for
                best_model_ema.pth, else `model`.
            device: `auto` (a GPU if there is one), `cpu`, `cuda`, or one GPU such as `cuda:1`. A
                CPU that would emulate the 16-bit precision of the training computes in float32.
            config: file of the training's config; by default, as `--config` of predict.py.

        Raises `UserError` for a checkpoint that cannot be read, and for another device.
        """
        path = find_checkpoint(Path(checkpoint), which)
        target_device = distributed.choose_device(device)
        settings = checkpoint_config(path, None if config is None else Path(config))
        if is_emulated(target_device, settings.precision):  # trained on a GPU: slow on this CPU
            settings = settings.model_copy(update={"precision": "float32"})
        network = load_trained(settings, path, which or network_in(path), target_device)
        return cls(Predictor(network, settings, target_device))

    def predict(self, image: ImageLike | Sequence[ImageLike]) -> Segmentation:
        """Segment one image; for change detection, a pair (earlier, later).

        Raises `UserError` for an image that the network cannot take.
        """
        pair = self.config.data.dates == 2
        dates: Any = [image]
        if pair and isinstance(image, Sequence) and not isinstance(image, str):
            dates = list(image)
        if len(dates) != self.config.data.dates:
            raise UserError("image: the network was trained on pairs; expected (earlier, later)")
        pixels, nodata_masks = zip(*map(self._pixels, dates), strict=True)
        if len({date.shape for date in pixels}) > 1:
            raise UserError("image: the two images of a pair differ in size")
        probabilities = self.predictor.probabilities(np.concatenate(pixels, axis=2))
        mask = to_mask(probabilities, union_of_masks(nodata_masks))
        return Segmentation(mask, probabilities.cpu().numpy(), [*self.config.data.classes])

    def predict_many(
        self, images: Iterable[ImageLike | Sequence[ImageLike]]
    ) -> Iterator[Segmentation]:
        """Segment images one after the other; they may differ in size."""
        return map(self.predict, images)

    def _pixels(self, image: ImageLike) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the bands that the network was trained on `[H, W, C]`, 0 without data, and the
        pixels without data `[H, W]`, bool; None if every pixel has data."""
        data, name = self.config.data, Path("image")
        if isinstance(image, str | os.PathLike):
            return read_bands(Path(image), data)
        if isinstance(image, Image.Image):
            nodata_mask = _nodata_mask_of(image)  # nodata of a TIFF; decoding rotates the image
            values = image_values(ImageOps.exif_transpose(image), data.bands)
        else:
            values, nodata_mask = np.ma.getdata(image), None
            if values.dtype.kind not in "buif":
                raise UserError(
                    f"image: found {type(image).__name__}; expected a path, a PIL image or an "
                    "array of numbers. Fix: open the bytes of a file with Pillow"
                )
            # A first axis that is below 16 and shorter than both others holds bands, not rows.
            is_bands_first = values.ndim == 3 and values.shape[0] < min(16, *values.shape[1:])
            if values.ndim not in (2, 3) or is_bands_first:
                raise UserError(
                    f"image: found an array {[*values.shape]}; expected [height, width] or "
                    "[height, width, bands]"
                )
            if data.image_range is None and values.dtype != np.uint8:
                raise UserError(
                    f"image: found an array of {values.dtype}; the network was trained on images "
                    "of 8 bits: expected uint8, from 0 to 255 (not divided by 255)"
                )
            if np.ma.is_masked(image):
                nodata_mask = np.asarray(np.atleast_3d(np.ma.getmaskarray(image)).all(axis=2))
        values = clean(choose_bands(values, data.bands, name), nodata_mask, name)
        return to_range(values, nodata_mask, data, name), nodata_mask


def _nodata_mask_of(image: Image.Image) -> np.ndarray | None:
    """Return pixels without data of an opened TIFF, `[H, W]`, bool; None if there are none."""
    if image.format != "TIFF":
        return None
    masks = [np.asarray(image.getchannel("A"))] if "A" in image.getbands() else []
    nodata = image.tag_v2.get(tiff.GDAL_NODATA_TAG)  # type: ignore[attr-defined]
    return tiff.nodata_mask_of(np.asarray(image), nodata, masks)
