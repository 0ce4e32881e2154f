"""Prediction of images larger than memory: in blocks, each from overlapping windows.

The weight of a window falls linearly to 0 towards its borders, where the network sees least
context, except at the border of the image. No border of a window is visible in the result.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from inference.predictor import Predictor, window_starts
from inference.raster import RasterSample, Rect

BLOCK_BYTES = 2**29
"""Memory for the probabilities of a block."""
TILE = 512
"""Side of the tiles of output files, in pixels; sides of blocks are multiples of it."""


class WindowAxis:
    """Windows along one side of an image, each overlapping the next by a third or more; at every
    pixel their weights sum to 1.

    In the outer quarters of an overlap the weight is 0, between them it rises linearly. At the
    border of the image, where no other window is, the weight does not fall.
    """

    def __init__(self, size: int, window: int):
        self.window = min(size, window)
        stride = max(1, int(self.window * 2 / 3))
        self.starts = window_starts(size, self.window, stride, "shift")
        overlap = self.window - stride
        rise = max(1, overlap - 2 * (overlap // 4))
        rising = np.clip((np.arange(self.window) + 0.5 - overlap // 4) / rise, 0, 1)
        self.weights = []
        """`[window]` of each window."""
        total = np.zeros(size)
        for start in self.starts:
            weight = rising if start > 0 else np.ones(self.window)
            if start + self.window < size:
                weight = np.minimum(weight, rising[::-1])
            self.weights.append(weight)
            total[start : start + self.window] += weight
        for number, start in enumerate(self.starts):
            self.weights[number] = self.weights[number] / total[start : start + self.window]

    def reaching(self, begin: int, length: int) -> list[tuple[int, np.ndarray]]:
        """Return start and weight of the windows with weight in `begin` to `begin + length`."""
        return [
            (start, weight)
            for start, weight in zip(self.starts, self.weights, strict=True)
            if weight[max(0, begin - start) : max(0, begin + length - start)].any()
        ]


class Window(NamedTuple):
    """A rectangle of pixels that the network sees at once."""

    rect: Rect
    down: np.ndarray
    """Weight of each row; the weight of a pixel is the product with that of its column."""
    across: np.ndarray


class BlockPlan(NamedTuple):
    """Blocks of an image, each predicted from several windows."""

    rows: WindowAxis
    columns: WindowAxis
    blocks: list[Rect]

    def windows(self, block: Rect) -> list[Window]:
        """Return the windows with weight in a block."""
        height, width = self.rows.window, self.columns.window
        return [
            Window(Rect(top, left, height, width), down, across)
            for top, down in self.rows.reaching(block.top, block.height)
            for left, across in self.columns.reaching(block.left, block.width)
        ]


def plan_blocks(height: int, width: int, window: int, classes: int) -> BlockPlan:
    """Divide an image into blocks whose probabilities fit into `BLOCK_BYTES`."""
    side = int((BLOCK_BYTES / (4 * classes)) ** 0.5) // TILE * TILE
    blocks = [
        Rect(top, left, min(side, height - top), min(side, width - left))
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]
    return BlockPlan(WindowAxis(height, window), WindowAxis(width, window), blocks)


@torch.no_grad()
def predict_block(
    predictor: Predictor,
    sample: RasterSample,
    block: Rect,
    windows: Sequence[Window],
    report: Callable[[int], object],
) -> Tensor:
    """Return the probabilities `[C, h, w]` of a block, 0 if no window has data.

    Raises `UserError` where they are not finite.

    Args:
        predictor: in mode `original`.
        report: is called with the number of windows of each batch.
    """
    config, device = predictor.config, predictor.device
    total = torch.zeros(config.num_classes, block.height, block.width, device=device)
    size = config.evaluation.window_batch
    for batch in (windows[i : i + size] for i in range(0, len(windows), size)):
        voids = [sample.void(window.rect) for window in batch]
        kept = [w for w, void in zip(batch, voids, strict=True) if void is None or not void.all()]
        if kept:
            pixels = np.stack([sample.read(window.rect) for window in kept])
            predicted = predictor.predict_batch(torch.from_numpy(pixels).permute(0, 3, 1, 2))
            for (rect, down, across), probabilities in zip(kept, predicted, strict=True):
                weight = torch.from_numpy(np.outer(down, across)).to(probabilities)
                common = block.common(rect)
                (rows, columns), (y, x) = common.within(block), common.within(rect)
                total[:, rows, columns] += (probabilities * weight)[:, y, x]
        report(len(batch))
    return predictor.require_finite(total, sample.first.path)
