"""Images larger than memory: block by block, each from overlapping windows.

The weight of a window falls linearly towards its borders, where a network sees least of what
surrounds a pixel, and the outermost pixels count nothing; so no window begins or ends visibly.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from inference.predictor import Predictor, window_starts
from inference.raster import Rect
from util.config.schema import Config

BLOCK_BYTES = 2**29
"""Memory for the probabilities of a block."""
TILE = 512
"""Side of the tiles that masks are stored in; the sides of blocks are multiples of it."""


class Windows(Protocol):
    """What is read window by window."""

    height: int
    width: int

    def read(self, rect: Rect) -> np.ndarray:
        """The bands in a window, `[h, w, C]`."""

    def valid(self, rect: Rect) -> np.ndarray | None:
        """`[h, w]`: where there are data; None for everywhere."""


class Axis:
    """Windows along one side of an image, a third of each over the next one; at every pixel their
    weights sum to 1.

    Of the overlap the outer quarters count nothing, between them the weight rises.  Where an image
    ends there is no other window, and the weight does not fall.
    """

    def __init__(self, size: int, window: int):
        self.window = min(size, window)
        stride = max(1, int(self.window * 2 / 3))
        self.starts = window_starts(size, self.window, stride, "shift")
        overlap = self.window - stride
        rise = max(1, overlap - 2 * (overlap // 4))
        rising = np.clip((np.arange(self.window) + 0.5 - overlap // 4) / rise, 0, 1)
        total = np.zeros(size)
        weights = []
        for start in self.starts:
            weight = rising if start > 0 else np.ones(self.window)
            if start + self.window < size:
                weight = np.minimum(weight, rising[::-1])
            weights.append(weight)
            total[start : start + self.window] += weight
        self.weights = [
            weight / total[start : start + self.window]
            for start, weight in zip(self.starts, weights, strict=True)
        ]
        """`[window]` of each."""

    def reaching(self, begin: int, length: int) -> list[int]:
        """The windows that count between `begin` and `begin + length`."""
        found = []
        for number, (start, weight) in enumerate(zip(self.starts, self.weights, strict=True)):
            inside = weight[max(0, begin - start) : max(0, begin + length - start)]
            if inside.any():
                found.append(number)
        return found


class Plan(NamedTuple):
    """How an image is predicted: in which blocks, from which windows."""

    rows: Axis
    columns: Axis
    blocks: list[Rect]

    def window(self, row: int, column: int) -> Rect:
        """A window by its numbers along both sides."""
        rows, columns = self.rows, self.columns
        return Rect(rows.starts[row], columns.starts[column], rows.window, columns.window)

    def weight(self, row: int, column: int) -> np.ndarray:
        """Its weight, `[h, w]`."""
        return np.outer(self.rows.weights[row], self.columns.weights[column])

    def windows(self, block: Rect) -> list[tuple[int, int]]:
        """Row and column of the windows that count in a block."""
        rows = self.rows.reaching(block.top, block.height)
        columns = self.columns.reaching(block.left, block.width)
        return [(row, column) for row in rows for column in columns]


def plan(height: int, width: int, window: int, classes: int) -> Plan:
    """Square windows of so many pixels, in blocks whose probabilities fit into `BLOCK_BYTES`."""
    side = max(1, int((BLOCK_BYTES / (4 * classes)) ** 0.5) // TILE) * TILE
    blocks = [
        Rect(top, left, min(side, height - top), min(side, width - left))
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]
    return Plan(Axis(height, window), Axis(width, window), blocks)


@torch.no_grad()
def predict_block(
    network: nn.Module,
    image: Windows,
    block: Rect,
    plan: Plan,
    config: Config,
    device: torch.device,
    done: Callable[[int], object],
) -> Tensor:
    """Probabilities `[C, h, w]` of a block, 0 where no window has data.

    Args:
        done: is told the number of windows of each batch.
    """
    predictor = Predictor(network, config, device, "original")
    total = torch.zeros(config.num_classes, block.height, block.width, device=device)
    places, size = plan.windows(block), config.evaluation.window_batch
    for some in (places[i : i + size] for i in range(0, len(places), size)):
        seen = [place for place in some if has_data(image, plan.window(*place))]
        if seen:
            pixels = np.stack([image.read(plan.window(*place)) for place in seen])
            batch = torch.from_numpy(pixels).permute(0, 3, 1, 2)
            found = predictor.predict_batch(batch)
            for place, probabilities in zip(seen, found, strict=True):
                weight = torch.from_numpy(plan.weight(*place)).to(probabilities)
                weighted = probabilities * weight
                add_window(total, weighted, block, plan.window(*place))
        done(len(some))
    return total


def has_data(image: Windows, rect: Rect) -> bool:
    """Whether there are any in a window."""
    valid = image.valid(rect)
    return valid is None or bool(valid.any())


def add_window(total: Tensor, window: Tensor, block: Rect, rect: Rect) -> None:
    """Add what of a window `[C, h, w]` at `rect` lies in a block to the block's `total`."""
    top, left = max(block.top, rect.top), max(block.left, rect.left)
    bottom = min(block.top + block.height, rect.top + rect.height)
    right = min(block.left + block.width, rect.left + rect.width)
    common = Rect(top, left, bottom - top, right - left)
    (rows, columns), (own_rows, own_columns) = common.within(block), common.within(rect)
    total[:, rows, columns] += window[:, own_rows, own_columns]
