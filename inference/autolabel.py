"""Automatic labels: masks of confident pixels as a labelled dataset, and a ranking of the images by
uncertainty."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from dataset.folders import read_samples
from dataset.mask_files import key_of
from dataset.overlap import locator
from dataset.reader import read_dates, size_of
from dataset.samples import Origin, Sample
from dataset.split_files import line_below, split_file_text
from dataset.validation import required_source
from inference.mask_encoding import MaskEncoding
from inference.output_folder import ImageTable, collect_errors
from inference.overlay import save_picture
from inference.predictor import UNCERTAINTIES, Predictor, confidence, mode_for_size, to_mask
from util.config.data import Data, PairFolders, SplitFile
from util.config.loading import dump_config
from util.config.schema import Config
from util.config.types import IGNORE
from util.errors import UserError, counted, printable
from util.io import csv_text, write_once
from util.paths import common_root

UNCERTAINTY_COLUMNS = ("labelled", *UNCERTAINTIES)
"""Columns of uncertainty.csv: the share of labelled pixels, and means over pixels with data."""


def unlabelled_samples(
    data: Data, images: Mapping[str, Path], listed: Path | None
) -> tuple[dict[str, Sample], int]:
    """Return `images`, those of `listed` (a split file) or of data.unlabeled, by the names of their
    masks.

    Labelled, validation and test images of the config are left out; their number is returned too.
    Raises `UserError` if no image remains, or if two would share a mask.
    """
    if data.pair is not None and images:
        raise UserError("--images: data.pair is set. Fix: name pairs in a split file with --list")
    samples: dict[str, Sample] = {}
    if images:
        for name, path in images.items():
            samples[name] = Sample(path.name, None, 0, Origin(path.parent, path.parent))
    else:
        source = listed or required_source(data.unlabeled, "unlabeled")
        for sample in read_samples(source, data, masks=False).samples:
            name = os.path.splitext(sample.image)[0]
            first = samples.setdefault(name, sample)
            if first != sample:
                raise UserError(
                    f"{sample.where}: {first.image_file} and {sample.image_file} would share the "
                    f"mask {name}.png"
                )
    sources = [source for source in (data.labeled, data.val, data.test) if source is not None]
    splits = [read_samples(source, data, masks=True).samples for source in sources]
    location = locator()
    taken = {location(sample) for split in splits for sample in split}
    kept = {name: sample for name, sample in samples.items() if location(sample) not in taken}
    if not kept:
        raise UserError(
            f"no image to label: all {len(samples)} are labelled, validation or test images"
        )
    return kept, len(samples) - len(kept)


def encoding_of_labels(data: Data) -> MaskEncoding:
    """Return the encoding of automatic labels; raises `UserError` where they cannot be written: a
    class without a value, or split files without a column of masks."""
    if isinstance(data.pair, PairFolders):
        raise UserError(
            "data.pair: split files of names have no column for new masks. Fix: write them as "
            "'first second mask', with data.pair: column"
        )
    return MaskEncoding(data, ignoring=True, for_training=True)


class RankedImage(NamedTuple):
    """An image and its uncertainty."""

    name: str
    sample: Sample
    numbers: dict[str, float]
    """By `UNCERTAINTY_COLUMNS`."""


class Autolabel:
    """A folder with masks/, and uncertainty.csv with a line for each image.

    `threshold`: least confidence, in [0, 1], of a pixel with a label; others are ignored. Raises
    `UserError` as `encoding_of_labels`.
    """

    def __init__(self, folder: Path, config: Config, threshold: float):
        self.folder, self.config, self.threshold = folder, config, threshold
        self.encoding = encoding_of_labels(config.data)
        self.table = ImageTable(folder / "uncertainty.csv", UNCERTAINTY_COLUMNS)

    def mask_path(self, name: str) -> Path:
        return self.folder / "masks" / f"{name}.png"

    def label(
        self,
        network: nn.Module,
        samples: Mapping[str, Sample],
        device: torch.device,
        windows: bool,
    ) -> list[UserError]:
        """Write the masks of images; return the errors of the images that failed.

        `windows`: predict images much larger than crops in sliding windows.
        """
        errors: list[UserError] = []
        mode: str = self.config.evaluation.mode
        self.table.start(samples)
        for name, sample in tqdm(samples.items(), disable=None, leave=False):
            with collect_errors(errors, sample.image_file):
                pixels, nodata_mask = read_dates(sample.image_files, self.config.data)
                if windows:
                    mode = mode_for_size(self.config, size_of(pixels))
                predictor = Predictor(network, self.config, device, mode)
                probabilities = predictor.probabilities(pixels, sample.image_file)
                mask = to_mask(probabilities, nodata_mask)
                mask[(confidence(probabilities) < self.threshold).cpu().numpy()] = IGNORE
                values = [(mask != IGNORE).mean(), *uncertainties(probabilities, nodata_mask)]
                self.table.add(name, [f"{value:.6f}" for value in values])
                save_picture(self.encoding.mask(mask), self.mask_path(name))
        return errors

    def ranking(self, samples: Mapping[str, Sample], acquisition: str) -> list[RankedImage]:
        """Return the images with masks, the most uncertain first."""
        by_text = {printable(name): (name, sample) for name, sample in samples.items()}
        images = [
            RankedImage(
                *by_text[text], dict(zip(UNCERTAINTY_COLUMNS, map(float, values), strict=True))
            )
            for text, values in self.table.rows().items()
            if text in by_text and self.mask_path(by_text[text][0]).exists()
        ]
        return sorted(images, key=lambda image: (-image.numbers[acquisition], image.name))

    def require_labels(self, ranking: Sequence[RankedImage]) -> None:
        """Raise `UserError` unless some image has labels."""
        if not any(image.numbers["labelled"] for image in ranking):
            raise UserError(
                f"{self.folder}: no pixel of {counted(len(ranking), 'image')} reaches the "
                f"threshold {self.threshold:g}. Fix: lower --threshold, with another --out"
            )

    def write_dataset(self, ranking: Sequence[RankedImage], config: Config) -> tuple[int, Path]:
        """Write split files, and a copy of `config` with the new labels in addition to its own.

        Images with new labels are no longer unlabelled; where none are left, the config has no
        options of a method, for supervised.py. Returns the number of images with labels, and the
        path of the written config.
        """
        labelled = [image for image in ranking if image.numbers["labelled"]]
        data, old = config.data, config.data.labeled
        location = locator()
        new = {location(image.sample) for image in labelled}
        unlabeled: Sequence[Sample] = []
        if data.unlabeled is not None:
            unlabeled = read_samples(data.unlabeled, data, masks=False).samples
        rest = [sample for sample in unlabeled if location(sample) not in new]
        samples = [*(image.sample for image in labelled), *rest]
        root = common_root([self.folder, *(f for sample in samples for f in sample.image_files)])
        lines = sorted(
            line_below(root, [*image.sample.image_files, self.mask_path(image.name)])
            for image in labelled
        )
        update: dict[str, Any] = {"labeled": self._write_list("labeled.txt", lines, root)}
        if old is not None:
            before = old if isinstance(old, tuple) else (old,)
            update["labeled"] = (*before, update["labeled"])
        if len(rest) < len(unlabeled):
            lines = [line_below(root, sample.image_files) for sample in rest]
            update["unlabeled"] = self._write_list("unlabeled.txt", lines, root) if rest else None
        if data.label_map is not None:
            key = key_of(self.encoding.ignored, self.encoding.in_colour)
            update["label_map"] = data.label_map | {key: IGNORE}
        path = self.folder / "config.yaml"
        changed: dict[str, Any] = {"data": data.model_copy(update=update)}
        if unlabeled and not rest:
            changed["method"] = {}
        write_once(path, dump_config(config.model_copy(update=changed)).encode())
        return len(labelled), path

    def _write_list(self, name: str, lines: Sequence[str], root: Path) -> SplitFile:
        path = self.folder / name
        write_once(path, split_file_text(lines))
        return SplitFile(list=path, root=root)


def uncertainties(probabilities: Tensor, nodata_mask: np.ndarray | None) -> list[float]:
    """Return the means of `UNCERTAINTIES` over the pixels with data of probabilities `[C, H, W]`; 0
    where there are none. `nodata_mask`: pixels without data `[H, W]`, bool."""
    if nodata_mask is not None:
        probabilities = probabilities[:, torch.from_numpy(~nodata_mask).to(probabilities.device)]
    if not probabilities.numel():
        return [0.0] * len(UNCERTAINTIES)
    return [measure(probabilities).mean().item() for measure in UNCERTAINTIES.values()]


def write_ranking(path: Path, ranking: Sequence[RankedImage], acquisition: str) -> None:
    """Write the images as CSV, the most uncertain first, with their scores."""
    head = ["rank", "image", f"score ({acquisition})", *UNCERTAINTY_COLUMNS]
    rows = [
        [rank, str(image.sample.image_file)]
        + [image.numbers[column] for column in (acquisition, *UNCERTAINTY_COLUMNS)]
        for rank, image in enumerate(ranking, 1)
    ]
    write_once(path, csv_text([head, *rows]).encode())


def write_selection(folder: Path, ranking: Sequence[RankedImage], count: int) -> Path:
    """Write next.txt with the `count` most uncertain images, and rest.txt with the others.

    Returns the folder that their paths are relative to.
    """
    roots = {image.sample.origin.root for image in ranking}
    files = [file for image in ranking for file in image.sample.image_files]
    root = roots.pop() if len(roots) == 1 else common_root(files)
    lines = [line_below(root, image.sample.image_files) for image in ranking]
    write_once(folder / "next.txt", split_file_text(lines[:count]))
    write_once(folder / "rest.txt", split_file_text(sorted(lines[count:])))
    return root
