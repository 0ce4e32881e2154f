"""Masks of confident pixels for unlabelled images, as a labelled dataset; images by uncertainty."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from dataset.folders import read_samples
from dataset.mask_files import key_of
from dataset.reader import Reader, size_of
from dataset.samples import Sample
from dataset.split_files import list_line, list_text
from dataset.validation import location
from inference.image_table import ImageTable
from inference.inputs import noting
from inference.mask_encoding import Original
from inference.overlay import save_picture
from inference.predictor import Predictor, config_for_size, to_mask
from inference.uncertainty import ACQUISITIONS, confidence
from util.config.data import SplitFile
from util.config.loading import dump_config
from util.config.schema import Config
from util.config.types import IGNORE
from util.errors import UserError, counted, printable
from util.io import csv_text, write_once

COLUMNS = ("labelled", *ACQUISITIONS)
"""Columns of uncertainty.csv: the share of labelled pixels, and means over all pixels."""


class Ranked(NamedTuple):
    """An image and its uncertainty."""

    name: str
    sample: Sample
    numbers: dict[str, float]
    """By `COLUMNS`."""


class Autolabel:
    """A folder with masks/, and uncertainty.csv with a line for each image.

    Raises `UserError` where masks cannot hold every class.

    Args:
        threshold: confidence in [0, 1] from which on a pixel gets a label; others are ignored.
    """

    def __init__(self, folder: Path, config: Config, threshold: float):
        self.folder, self.config, self.threshold = folder, config, threshold
        self.original = Original(config.data, ignoring=True)
        self.table = folder / "uncertainty.csv"

    def mask(self, name: str) -> Path:
        return self.folder / "masks" / f"{name}.png"

    def label(
        self,
        network: nn.Module,
        samples: Mapping[str, Sample],
        device: torch.device,
        windows: bool,
    ) -> list[UserError]:
        """Write the masks of images; returns the errors of the images that failed.

        `windows`: images much larger than crops are predicted in sliding windows.
        """
        reader, errors = Reader(self.config.data), list[UserError]()
        table = ImageTable(self.table, COLUMNS, samples)
        for name, sample in tqdm(samples.items(), disable=None, leave=False):
            with noting(errors, sample.image_file):
                pixels, void = reader.unlabeled(sample)
                own = config_for_size(self.config, size_of(pixels)) if windows else self.config
                probabilities = Predictor(network, own, device).probabilities(pixels)
                mask = to_mask(probabilities)
                mask[(confidence(probabilities) < self.threshold).cpu().numpy()] = IGNORE
                if void is not None:
                    mask[np.asarray(void) == IGNORE] = IGNORE
                means = [measure(probabilities).mean().item() for measure in ACQUISITIONS.values()]
                numbers = [float((mask != IGNORE).mean()), *means]
                table.add(name, [f"{number:.6f}" for number in numbers])
                save_picture(self.original.mask(mask), self.mask(name))
        return errors

    def ranking(self, samples: Mapping[str, Sample], acquisition: str) -> list[Ranked]:
        """Return the images that have masks, the most uncertain first."""
        by_text = {printable(name): (name, sample) for name, sample in samples.items()}
        head, *lines = ImageTable(self.table, COLUMNS, []).lines()
        found = [
            Ranked(*by_text[line[0]], dict(zip(head[1:], map(float, line[1:]), strict=True)))
            for line in lines
            if line[0] in by_text
        ]
        return sorted(found, key=lambda image: (-image.numbers[acquisition], image.name))

    def write_dataset(self, ranking: Sequence[Ranked]) -> tuple[int, Path]:
        """Write split files, and a config with the new masks beside those of the old config.

        Images that have a label now are no longer unlabelled. Returns the number of images with
        labels, and the config's path.
        """
        labelled = [image for image in ranking if image.numbers["labelled"]]
        if not labelled:
            raise UserError(
                f"{self.folder}: no pixel of {counted(len(ranking), 'image')} reaches the "
                f"threshold {self.threshold:g}; lower it"
            )
        data, old = self.config.data, self.config.data.labeled
        new = {location(image.sample) for image in labelled}
        unlabeled: Sequence[Sample] = []
        if data.unlabeled is not None:
            unlabeled = read_samples(data.unlabeled, data, masks=False).samples
        rest = [sample for sample in unlabeled if location(sample) not in new]
        samples = [*(image.sample for image in labelled), *rest]
        root = common_root([self.folder, *(f for sample in samples for f in sample.image_files)])
        lines = sorted(
            list_line(*below(root, [*image.sample.image_files, self.mask(image.name)]))
            for image in labelled
        )
        update: dict[str, Any] = {"labeled": self._write_list("labeled.txt", lines, root)}
        if old is not None:
            before = old if isinstance(old, tuple) else (old,)
            update["labeled"] = (*before, update["labeled"])
        if len(rest) < len(unlabeled):
            lines = [list_line(*below(root, sample.image_files)) for sample in rest]
            update["unlabeled"] = self._write_list("unlabeled.txt", lines, root) if rest else None
        if data.label_map is not None:
            key = key_of(self.original.ignored, self.original.in_colour)
            update["label_map"] = data.label_map | {key: IGNORE}
        path = self.folder / "config.yaml"
        config = self.config.model_copy(update={"data": data.model_copy(update=update)})
        write_once(path, dump_config(config).encode())
        return len(labelled), path

    def _write_list(self, name: str, lines: Sequence[str], root: Path) -> SplitFile:
        path = self.folder / name
        write_once(path, list_text(lines))
        return SplitFile(list=path, root=root)


def common_root(paths: Sequence[Path]) -> Path:
    """Return the folder that contains all files, relative to the working directory if inside it."""
    root = Path(os.path.commonpath([os.path.abspath(path.parent) for path in paths]))
    here = Path.cwd()
    return root.relative_to(here) if root.is_relative_to(here) else root


def below(root: Path, files: Sequence[Path]) -> list[str]:
    """Return paths relative to a folder that contains them."""
    return [Path(os.path.relpath(file, root)).as_posix() for file in files]


def write_ranking(path: Path, ranking: Sequence[Ranked], acquisition: str) -> None:
    """Write the images as CSV, the most uncertain first, with their scores."""
    head = ["rank", "image", f"score ({acquisition})", *COLUMNS]
    rows = [
        [rank, str(image.sample.image_file)]
        + [image.numbers[column] for column in (acquisition, *COLUMNS)]
        for rank, image in enumerate(ranking, 1)
    ]
    write_once(path, csv_text([head, *rows]).encode())


def write_selection(folder: Path, ranking: Sequence[Ranked], count: int) -> Path:
    """Write next.txt with the `count` most uncertain images, and rest.txt with the others.

    Returns the folder that their paths are relative to.
    """
    roots = {image.sample.origin.root for image in ranking}
    files = [file for image in ranking for file in image.sample.image_files]
    root = roots.pop() if len(roots) == 1 else common_root(files)
    lines = [list_line(*below(root, image.sample.image_files)) for image in ranking]
    write_once(folder / "next.txt", list_text(lines[:count]))
    write_once(folder / "rest.txt", list_text(sorted(lines[count:])))
    return root
