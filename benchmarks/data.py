"""Samples that a data worker makes, on one core: ours, the plain ones, and decoding alone."""

import argparse
import itertools
import tempfile
from pathlib import Path

import torch
from PIL import Image

from benchmarks import photos, plain_data
from benchmarks.measure import Table, add_common, compare, read, report
from dataset.check import read_lists
from dataset.files import Reader, image_size, load_image
from dataset.sets import UNLABELED, TrainingSet

VIEWS = 2
ROUND = 24  # samples of a timed call


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_common(parser, repeats=9)
    photos.add_arguments(parser)


def run(options: argparse.Namespace) -> None:
    report(measure(options), options)


def measure(options: argparse.Namespace) -> list[Table]:
    torch.set_num_threads(1)  # as in a data worker
    with tempfile.TemporaryDirectory() as folder:
        data = photos.make_dataset(Path(folder), options.images)
        config = read(options, {"data": data})
        lists = read_lists(config.data, unlabeled=True)
        labeled, unlabeled = lists.labeled.samples, lists.unlabeled.samples
        reader, crop = Reader(config.data), config.crop_size
        ours, keeping = (
            TrainingSet(
                reader, labeled, unlabeled, length=ROUND, crop_size=crop, strong_views=VIEWS,
                partner="other", seed=0, cache=cache,
            )
            for cache in (0, config.data.cache_mb * 2**20)
        )  # fmt: skip
        for i in range(len(labeled)):
            keeping.labeled_sample(i, 0, i)
        images = [sample.image_file for sample in unlabeled]
        pairs = [(s.image_file, s.mask_file) for s in labeled]
        notes = {"crop": crop, "images": "{}x{}".format(*image_size(images[0])), "threads": 1}
        number = itertools.count()

        def each(make):
            """A call that makes samples of ever new numbers."""
            return lambda: [make(next(number)) for _ in range(ROUND)]

        def plain_labeled(i: int) -> None:
            image, mask = map(Image.open, pairs[i % len(pairs)])
            plain_data.labeled_sample(image, mask, crop)

        def plain_unlabeled(i: int) -> None:
            image = Image.open(images[i % len(images)])
            plain_data.unlabeled_sample(image, crop, VIEWS)

        unlabeled_rows = compare(
            {
                "plain": each(plain_unlabeled),
                "ours": each(lambda i: ours.unlabeled_sample(i % len(images), UNLABELED, 0, i)),
                "decoding alone": each(lambda i: load_image(images[i % len(images)])),
            },
            options,
            work=ROUND,
        )
        labeled_rows = compare(
            {
                "plain": each(plain_labeled),
                "ours, seen first": each(lambda i: ours.labeled_sample(i % len(pairs), 0, i)),
                "ours, seen again": each(lambda i: keeping.labeled_sample(i % len(pairs), 0, i)),
                "decoding alone": each(lambda i: [*map(load_image, pairs[i % len(pairs)])]),
            },
            options,
            work=ROUND,
        )
    return [
        Table(f"unlabelled samples, {VIEWS} strong views", "sample", unlabeled_rows, notes),
        Table("labelled samples", "sample", labeled_rows, notes),
    ]
