"""Masks for unlabelled images of what a network is sure of, as a labelled dataset; and which images
it is least sure of."""

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
from util.config.data import Listed
from util.config.loading import dump_config
from util.config.schema import Config
from util.config.types import IGNORE
from util.errors import UserError, printable
from util.io import csv_text, write_once

COLUMNS = ("labelled", *ACQUISITIONS)
"""Of uncertainty.csv: the share of the pixels that have a label, and means over all pixels."""


class Ranked(NamedTuple):
    """An image, and how unsure a network is of it."""

    name: str
    sample: Sample
    numbers: dict[str, float]
    """By `COLUMNS`."""


class Autolabel:
    """Labels images in a folder: masks/, and uncertainty.csv with a line for each image.

    Raises `UserError` where masks cannot hold every class.

    Args:
        threshold: probability in [0, 1] that a pixel's class needs, else the pixel is ignored.
    """

    def __init__(self, folder: Path, config: Config, threshold: float):
        self.folder, self.config, self.threshold = folder, config, threshold
        self.original = Original(config.data, ignoring=True)
        self.table = folder / "uncertainty.csv"

    def mask(self, name: str) -> Path:
        return self.folder / "masks" / f"{name}.png"

    def files(self, name: str) -> list[Path]:
        """The files of an image."""
        return [self.mask(name)]

    def label(
        self,
        network: nn.Module,
        samples: Mapping[str, Sample],
        device: torch.device,
        windows: bool,
    ) -> list[UserError]:
        """Write the masks of images; returns what is wrong with those that have none.

        `windows`: images much larger than crops go through the network in parts, not whole.
        """
        reader, faults = Reader(self.config.data), list[UserError]()
        table = ImageTable(self.table, COLUMNS, samples)
        for name, sample in tqdm(samples.items(), disable=None, leave=False):
            with noting(faults, sample.image_file):
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
        return faults

    def ranking(self, samples: Mapping[str, Sample], acquisition: str) -> list[Ranked]:
        """The images that have masks, the most uncertain first."""
        by_text = {printable(name): (name, sample) for name, sample in samples.items()}
        head, *lines = ImageTable(self.table, COLUMNS, []).lines()
        found = [
            Ranked(*by_text[line[0]], dict(zip(head[1:], map(float, line[1:]), strict=True)))
            for line in lines
            if line[0] in by_text
        ]
        return sorted(found, key=lambda image: (-image.numbers[acquisition], image.name))

    def write_dataset(self, ranking: Sequence[Ranked]) -> tuple[int, Path]:
        """Write lists, and a config that trains on the new masks beside those that there were;
        returns the number of images with labels, and the config's path.

        What is labelled now is no longer unlabelled.
        """
        labelled = [image for image in ranking if image.numbers["labelled"]]
        if not labelled:
            raise UserError(
                f"{self.folder}: no pixel of {len(ranking)} images reaches the threshold "
                f"{self.threshold:g}; lower it"
            )
        data, old = self.config.data, self.config.data.labeled
        rest, changed = self._unlabeled({location(image.sample) for image in labelled})
        files = [file for image in labelled for file in image.sample.image_files]
        root = common_root([self.folder, *files, *(f for s in rest for f in s.image_files)])
        lines = sorted(
            list_line(*below(root, [*image.sample.image_files, self.mask(image.name)]))
            for image in labelled
        )
        update: dict[str, Any] = {"labeled": self._write_list("labeled.txt", lines, root)}
        if old is not None:
            before = old if isinstance(old, tuple) else (old,)
            update["labeled"] = (*before, update["labeled"])
        if changed:
            lines = [list_line(*below(root, sample.image_files)) for sample in rest]
            update["unlabeled"] = self._write_list("unlabeled.txt", lines, root) if rest else None
        if data.label_map is not None:
            key = key_of(self.original.ignored, self.original.in_colour)
            update["label_map"] = data.label_map | {key: IGNORE}
        path = self.folder / "config.yaml"
        new = self.config.model_copy(update={"data": data.model_copy(update=update)})
        write_once(path, dump_config(new).encode())
        return len(labelled), path

    def _unlabeled(self, labelled: set[str]) -> tuple[list[Sample], bool]:
        """The config's unlabelled images that still have no label, and whether some have one."""
        if self.config.data.unlabeled is None:
            return [], False
        samples = read_samples(self.config.data.unlabeled, self.config.data, masks=False).samples
        rest = [sample for sample in samples if location(sample) not in labelled]
        return rest, len(rest) < len(samples)

    def _write_list(self, name: str, lines: Sequence[str], root: Path) -> Listed:
        path = self.folder / name
        write_once(path, list_text(lines))
        return Listed(list=path, root=root)


def common_root(paths: Sequence[Path]) -> Path:
    """The folder that all of them are below, as the working directory sees it."""
    root = Path(os.path.commonpath([os.path.abspath(path.parent) for path in paths]))
    here = Path.cwd()
    return root.relative_to(here) if root.is_relative_to(here) else root


def below(root: Path, files: Sequence[Path]) -> list[str]:
    """Paths relative to a folder that they are below."""
    return [Path(os.path.relpath(file, root)).as_posix() for file in files]


def write_ranking(path: Path, ranking: Sequence[Ranked], acquisition: str) -> None:
    """Write the images, the most uncertain first, with their score and all that is known."""
    head = ["rank", "image", f"score ({acquisition})", *COLUMNS]
    rows = [
        [rank, str(image.sample.image_file), image.numbers[acquisition]]
        + [image.numbers[column] for column in COLUMNS]
        for rank, image in enumerate(ranking, 1)
    ]
    write_once(path, csv_text([head, *rows]).encode())


def write_selection(folder: Path, ranking: Sequence[Ranked], count: int) -> Path:
    """Write the lists next.txt, of the `count` images to label next, and rest.txt; returns the
    folder that their paths are relative to: that of the images' own lists, where it is one."""
    roots = {image.sample.origin.root for image in ranking}
    files = [file for image in ranking for file in image.sample.image_files]
    root = roots.pop() if len(roots) == 1 else common_root(files)
    lines = [list_line(*below(root, image.sample.image_files)) for image in ranking]
    write_once(folder / "next.txt", list_text(lines[:count]))
    write_once(folder / "rest.txt", list_text(sorted(lines[count:])))
    return root
