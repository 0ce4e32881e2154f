"""HD95 and average surface distance of each class, over the volumes of an evaluation."""

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metrics.surface import surface_scores
from util import distributed
from util.config.types import IGNORE
from util.errors import UserError
from util.log import logger
from util.tables import text_table


class VolumeDistances:
    """Surface distances of volumes, a `ScoreCollector` of `inference.evaluation.evaluate`.

    Args:
        images: path of each image; slices are stacked in the order of their paths, with numbers
            sorted by value.
        sizes: width and height of each image, as scored.
        volumes: number of each image's volume, by index.
        spacing: distance between slices, rows and columns; None: pixels, slices one pixel apart.

    Raises `UserError` for slices of different sizes in a volume.
    """

    def __init__(
        self,
        images: Sequence[str],
        sizes: Sequence[tuple[int, int]],
        volumes: Sequence[int],
        classes: int,
        spacing: Sequence[float] | None,
        device: torch.device,
    ):
        self.classes, self.device = classes, device
        self.spacing = spacing or (1.0, 1.0, 1.0)
        self.unit = "pixels" if spacing is None else "mm"
        self.volumes: list[list[int]] = [[] for _ in range(max(volumes) + 1)]
        for index in sorted(range(len(images)), key=lambda index: _by_numbers(images[index])):
            self.volumes[volumes[index]].append(index)
        for indices in self.volumes:
            if _warn_of_gap([images[index] for index in indices]):
                break  # others probably have the same cause
        self.sizes = [_common_size(indices, images, sizes) for indices in self.volumes]
        """Width and height of the slices of each volume."""
        self.slices: dict[int, Tensor] = {}
        """Prediction and mask uint8 `[2, H, W]` of this process's images, by index, on the CPU."""

    def add(self, index: int, predicted: Tensor, target: Tensor) -> None:
        """Store the classes `[H, W]` of a slice; ignored pixels get no class in either."""
        predicted = torch.where(target == IGNORE, IGNORE, predicted)
        self.slices[index] = torch.stack([predicted, target]).to("cpu", torch.uint8)

    def means(self) -> tuple[Tensor, Tensor]:
        """Return mean HD95 and average surface distance of each class `[2, C]`, over the volumes
        with the class in prediction and mask, and the number of these volumes `[C]`.

        All processes take part.
        """
        rank, world = distributed.rank(), distributed.world_size()
        sums = torch.zeros(3, self.classes, dtype=torch.float64)
        for number, (indices, (w, h)) in enumerate(zip(self.volumes, self.sizes, strict=True)):
            volume = torch.zeros(2, len(indices), h, w, dtype=torch.uint8)
            for position, index in enumerate(indices):
                if index in self.slices:
                    volume[:, position] = self.slices[index]
            whole = distributed.all_reduce(volume.to(self.device)).cpu().numpy()
            if number % world == rank:
                sums += self._scores(*whole)
        hd95, asd, count = distributed.all_reduce(sums.to(self.device)).cpu()
        return torch.stack([hd95, asd]) / count, count.long()

    def log_table(self, classes: Sequence[str]) -> dict[str, list[float | None]]:
        """Log the `means` as a table; return its columns by title, None for missing values."""
        means, count = self.means()
        rows = [["", "HD95", "ASD", "volumes"]]
        for name, hd95, asd, n in zip(classes, *means.tolist(), count.tolist(), strict=True):
            rows.append([name, f"{hd95:.2f}", f"{asd:.2f}", f"{n} of {len(self.volumes)}"])
        logger.info("surface distances in %s:\n%s", self.unit, text_table(rows, "<>"))
        values = [[None if math.isnan(v) else v for v in column] for column in means.tolist()]
        titles = f"HD95 ({self.unit})", f"ASD ({self.unit})"
        return dict(zip(titles, values, strict=True)) | {"ASD volumes": count.tolist()}

    def _scores(self, predicted: np.ndarray, target: np.ndarray) -> Tensor:
        """Return HD95, average surface distance and 1 for each class `[3, C]`; zeros if absent."""
        pairs = [surface_scores(predicted == c, target == c, self.spacing)
                 for c in range(self.classes)]  # fmt: skip
        scores = torch.tensor(pairs, dtype=torch.float64).T
        present = ~scores[:1].isnan()
        return torch.cat([scores.nan_to_num(0), present.double()])


def _common_size(
    indices: Sequence[int], images: Sequence[str], sizes: Sequence[tuple[int, int]]
) -> tuple[int, int]:
    """Return width and height of a volume; raises `UserError` where slices differ."""
    first, *others = indices
    for other in others:
        if sizes[other] != sizes[first]:
            (w, h), (w0, h0) = sizes[other], sizes[first]
            raise UserError(
                f"--surface-distance: {images[other]} has {w}x{h} pixels; expected {w0}x{h0} as "
                f"{images[first]}, a slice of the same volume. Fix: correct "
                "evaluation.volume_pattern or the images"
            )
    return sizes[first]


def _warn_of_gap(slices: Sequence[str]) -> bool:
    """Warn, and return True, if the last numbers in the names of a volume's slices do not increase
    evenly."""
    numbers = [re.findall(r"\d+", Path(name).stem) for name in slices]
    last = [int(found[-1]) for found in numbers if found]
    steps = [after - before for before, after in pairwise(last)]
    usual = min((step for step in steps if step > 0), default=1)
    uneven = [i for i, step in enumerate(steps) if step != usual]
    has_gap = len(last) == len(slices) and bool(uneven)
    if has_gap:
        logger.warning(
            "--surface-distance: %s and %s are stacked as neighbours, but their numbers do not "
            "follow each other; HD95 and ASD of this volume may be wrong. Fix: score all slices, "
            "or correct evaluation.volume_pattern: a group for each patient and time point",
            slices[uneven[0]], slices[uneven[0] + 1],
        )  # fmt: skip
    return has_gap


def _by_numbers(path: str) -> list[tuple[int, str]]:
    """Return a sort key that puts slice_2 before slice_10."""
    parts = re.split(r"(\d+)", path)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
