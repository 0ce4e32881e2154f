"""Time samples of a data worker, on one core, and decoding alone; write photos to measure on."""

import argparse
import itertools
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dataset.cache import CacheBytes, DecodedSamples, cache_bytes
from dataset.datasets import UNLABELED, TrainingSet
from dataset.file_content import read_content
from dataset.image_files import IMAGE_SUFFIXES, image_size
from dataset.reader import Reader
from dataset.validation import read_splits
from tools.benchmark.measure import Call, compare, read, report
from util.errors import UserError

VIEWS = 2
ROUND = 24
"""Samples of a timed call."""
SIZE = (500, 375)
COUNT = 48
CLASSES = 21


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)  # as in a data worker
    with tempfile.TemporaryDirectory() as folder:
        config = read(args, data=data_section(Path(folder), args))
        lists = read_splits(config.data, unlabeled=True)
        labeled, unlabeled = lists.labeled.samples, lists.unlabeled.samples
        reader = Reader(config.data)
        fresh, keeping = (
            TrainingSet(
                config,
                DecodedSamples(reader, labeled, True, room.labeled),
                DecodedSamples(reader, unlabeled, False, room.unlabeled),
                length=ROUND, strong_views=VIEWS, cutmix_partner="other",
            )
            for room in (CacheBytes(0, 0, 0), cache_bytes(lists, config.data))
        )  # fmt: skip
        images = [sample.image_file for sample in unlabeled]
        pairs = [(sample.image_file, sample.mask_file) for sample in labeled]

        def of_pair(dataset: TrainingSet, i: int) -> object:
            return dataset.labeled_sample(i % len(pairs), 0, i)

        def of_image(dataset: TrainingSet, i: int) -> object:
            return dataset.unlabeled_sample(i % len(images), UNLABELED, 0, i)

        for i in range(len(pairs)):
            of_pair(keeping, i)
        for i in range(len(images)):
            of_image(keeping, i)
        kinds: dict[str, dict[str, Callable[[int], object]]] = {
            f"unlabelled samples, {VIEWS} strong views": {
                "decoding alone": lambda i: read_content(images[i % len(images)]),
                "whole, seen first": partial(of_image, fresh),
                "whole, seen again": partial(of_image, keeping),
            },
            "labelled samples": {
                "decoding alone": lambda i: [*map(read_content, pairs[i % len(pairs)])],
                "whole, seen first": partial(of_pair, fresh),
                "whole, seen again": partial(of_pair, keeping),
            },
        }
        tables = {title: compare(_in_turn(k), args, ROUND) for title, k in kinds.items()}
        size = "{}x{}".format(*image_size(images[0]))
        report(tables, {"crop": config.crop_size, "images": size})


def _in_turn(makers: dict[str, Callable[[int], object]]) -> dict[str, Call]:
    """Return calls that make ROUND samples, each with a new number."""
    number = itertools.count()

    def samples(make: Callable[[int], object]) -> list[object]:
        return [make(next(number)) for _ in range(ROUND)]

    return {name: partial(samples, make) for name, make in makers.items()}


def data_section(root: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return changes of the config's data section; writes files to `root`, unless --own is set."""
    return {} if args.own else make_dataset(root, args.images)


def make_dataset(root: Path, images: Path | None) -> dict[str, Any]:
    """Write images, masks and split files: half of the images are labelled, four of these are for
    validation.

    Returns the config's data section. Raises `UserError` for a folder with too few images.
    """
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    rng = np.random.default_rng(0)
    if images:
        found = sorted(path for path in images.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        if len(found) < 16:
            raise UserError(f"--images {images}: found {len(found)} images, expected at least 16")
        for path in found:
            (root / "images" / path.name).symlink_to(path.resolve())
    else:
        for i in range(COUNT):
            _photo(rng).save(root / f"images/{i}.jpg", quality=90)
    lines = []
    for path in sorted((root / "images").iterdir()):
        mask = Image.fromarray(rng.integers(0, CLASSES, (5, 7), dtype=np.uint8))
        mask = mask.resize(image_size(path), Image.Resampling.NEAREST)
        mask.save(root / f"masks/{path.name}.png")
        lines.append(f"images/{path.name}\tmasks/{path.name}.png\n")
    half = len(lines) // 2
    parts = {"val": lines[:4], "labeled": lines[4:half], "unlabeled": lines[half:]}
    for kind, part in parts.items():
        (root / f"{kind}.txt").write_text("".join(part))
    return {
        "name": "photos",
        "root": str(root),
        "classes": [str(i) for i in range(CLASSES)],
        "palette": None,
        "label_map": None,
        "pair": None,
        "test": None,
        "reduce_zero_label": False,
        **{kind: str(root / f"{kind}.txt") for kind in parts},
    }


def _photo(rng: np.random.Generator) -> Image.Image:
    """Draw noise of many scales, which takes about as long to decode as a photo."""
    total = np.zeros((SIZE[1], SIZE[0], 3))
    for octave in range(7):
        cells = (min(4 << octave, SIZE[1]), min(4 << octave, SIZE[0]), 3)
        small = Image.fromarray(rng.integers(0, 256, cells, dtype=np.uint8))
        total += np.asarray(small.resize(SIZE, Image.Resampling.BICUBIC)) / 2**octave
    return Image.fromarray((total / 2).clip(0, 255).astype(np.uint8))
