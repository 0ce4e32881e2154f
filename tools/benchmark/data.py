"""Samples that a data worker makes, on one core, and decoding alone."""

import argparse
import itertools
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from dataset.cache import CacheBytes, Opened, cache_bytes
from dataset.datasets import UNLABELED, TrainingSet
from dataset.file_content import read_content
from dataset.image_files import image_size
from dataset.reader import Reader
from dataset.validation import read_lists
from tools.benchmark import photos
from tools.benchmark.measure import Call, compare, read, report

VIEWS = 2
ROUND = 24  # samples of a timed call


def run(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)  # as in a data worker
    with tempfile.TemporaryDirectory() as folder:
        config = read(options, data=photos.data_section(Path(folder), options))
        lists = read_lists(config.data, unlabeled=True)
        labeled, unlabeled = lists.labeled.samples, lists.unlabeled.samples
        reader = Reader(config.data)
        fresh, keeping = (
            TrainingSet(
                config,
                Opened(reader, labeled, True, room.labeled),
                Opened(reader, unlabeled, False, room.unlabeled),
                length=ROUND, strong_views=VIEWS, partner="other",
            )
            for room in (CacheBytes(0, 0, 0), cache_bytes(lists, config.data))
        )  # fmt: skip
        for i in range(len(labeled)):
            keeping.labeled_sample(i, 0, i)
        for i in range(len(unlabeled)):
            keeping.unlabeled_sample(i, UNLABELED, 0, i)
        images = [sample.image_file for sample in unlabeled]
        pairs = [(sample.image_file, sample.mask_file) for sample in labeled]
        kinds: dict[str, dict[str, Callable[[int], object]]] = {
            f"unlabelled samples, {VIEWS} strong views": {
                "decoding alone": lambda i: read_content(images[i % len(images)]),
                "whole, seen first": lambda i: fresh.unlabeled_sample(
                    i % len(images), UNLABELED, 0, i
                ),
                "whole, seen again": lambda i: keeping.unlabeled_sample(
                    i % len(images), UNLABELED, 0, i
                ),
            },
            "labelled samples": {
                "decoding alone": lambda i: [*map(read_content, pairs[i % len(pairs)])],
                "whole, seen first": lambda i: fresh.labeled_sample(i % len(pairs), 0, i),
                "whole, seen again": lambda i: keeping.labeled_sample(i % len(pairs), 0, i),
            },
        }
        tables = {title: compare(_in_turn(k), options, ROUND) for title, k in kinds.items()}
        size = "{}x{}".format(*image_size(images[0]))
        report(tables, {"crop": config.crop_size, "images": size})


def _in_turn(makers: dict[str, Callable[[int], object]]) -> dict[str, Call]:
    """Calls that make ROUND samples, with a new number each."""
    number = itertools.count()

    def samples(make: Callable[[int], object]) -> list[object]:
        return [make(next(number)) for _ in range(ROUND)]

    return {name: partial(samples, make) for name, make in makers.items()}
