"""Segmentation of images with a trained network, for use in Python programs."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dataset.bands import choose_bands, image_values, read_bands, to_range
from inference.cli import checkpoint_config
from inference.predictor import Predictor, to_mask
from model.files import find_checkpoint
from model.trained import load_trained
from util import distributed
from util.config.schema import Config
from util.errors import UserError

ImageLike = str | os.PathLike | Image.Image | np.ndarray
"""A file, a PIL image, or an array `[H, W]` or `[H, W, bands]` with the values of a file."""


class Segmentation(NamedTuple):
    """The prediction of one image."""

    mask: np.ndarray
    """Class indices `[H, W]`, uint8."""
    probabilities: np.ndarray
    """Class probabilities `[C, H, W]`, float32; they sum to 1."""
    classes: list[str]
    """Class names, by index."""


class Segmenter:
    """A trained network that segments images.

    >>> segmenter = Segmenter.load("runs/cells")
    >>> mask = segmenter.predict("cell.png").mask
    """

    def __init__(self, predictor: Predictor, config: Config):
        self.predictor, self.config = predictor, config

    @classmethod
    def load(
        cls, checkpoint: str | os.PathLike, which: str = "model", device: str = "auto"
    ) -> "Segmenter":
        """Load a checkpoint file, a run directory (its best checkpoint), a published folder, or
        `hf:OWNER/NAME` on the Hugging Face hub.

        Args:
            which: the network in the checkpoint, such as `model_ema` for a teacher.
            device: `auto` (a GPU if there is one), `cpu` or `cuda`.

        Raises `UserError` for a checkpoint that cannot be read.
        """
        path = find_checkpoint(Path(checkpoint), which)
        config, place = checkpoint_config(path), distributed.choose_device(device)
        network = load_trained(config, path, which, place)
        return cls(Predictor(network, config, place), config)

    def predict(self, image: ImageLike | Sequence[ImageLike]) -> Segmentation:
        """Segment one image; for change detection, a pair (earlier, later).

        Raises `UserError` for an image that the network cannot take.
        """
        pair = self.config.data.dates == 2
        dates: Any = list(image) if pair and isinstance(image, Sequence) else [image]
        if len(dates) != self.config.data.dates:
            raise UserError("image: the network was trained on pairs; expected (earlier, later)")
        pixels = [self._pixels(date) for date in dates]
        if len({date.shape for date in pixels}) > 1:
            raise UserError("image: the two images of a pair differ in size")
        probabilities = self.predictor.probabilities(np.concatenate(pixels, axis=2))
        return Segmentation(
            to_mask(probabilities), probabilities.cpu().numpy(), self.config.data.classes
        )

    def predict_many(
        self, images: Iterable[ImageLike | Sequence[ImageLike]]
    ) -> Iterator[Segmentation]:
        """Segment images one after the other; they may differ in size."""
        return map(self.predict, images)

    def _pixels(self, image: ImageLike) -> np.ndarray:
        """Return the bands that the network was trained on, `[H, W, C]`."""
        data = self.config.data
        if isinstance(image, str | os.PathLike):
            return read_bands(Path(image), data)
        if isinstance(image, Image.Image):
            image = image_values(image, data.bands)
        name = Path("image")
        return to_range(choose_bands(image, data.bands, name), data, name)
