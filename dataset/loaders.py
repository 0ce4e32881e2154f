"""Samplers and loaders; which process gets what is arithmetic on rank and world size."""

import os
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from dataset.lists import Lists, Sample
from dataset.sets import EvaluationSet, TrainingSet
from util.config import Config
from util.errors import UserError


class Place(NamedTuple):
    """Where a loader runs."""

    rank: int
    world: int
    workers: int
    """Data workers of this process."""
    cuda: bool
    """Whether batches go to a GPU."""


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, position) of one process: its part of every global batch.

    `at_epoch` sets the epoch.
    """

    def __init__(self, steps: int, batch: int, place: Place):
        self.steps, self.batch, self.place = steps, batch, place
        self.epoch = 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        own = self.batch // self.place.world
        for step in range(self.steps):
            first = step * self.batch + self.place.rank * own
            yield [(self.epoch, position) for position in range(first, first + own)]


def steps_per_epoch(config: Config, labeled: int, unlabeled: int, images: int) -> int:
    """Optimizer steps in one pass over the longer list (at least one), or `epoch_length`.

    `images`: those of each kind in a step.
    """
    return config.epoch_length or max(1, max(labeled, unlabeled) // images)


def data_workers(config: Config, processes: int) -> int:
    """Workers of a process, one of `processes` on this machine: the config's number, or by the
    cores that it may use."""
    if config.data.workers is not None:
        return config.data.workers
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(8, cores // processes - 1))


def images_per_forward(config: Config, images: int, world: int) -> int:
    """Labelled images that one forward of one process sees, of a global batch of `images`.

    Raises `UserError` for a batch that does not divide.
    """
    if images % world:
        raise UserError(
            f"batch_size: a global batch of {images} labelled images cannot be divided by "
            f"{world} processes; use a multiple of {world}"
        )
    own = images // world
    if config.micro_batch and own % config.micro_batch:
        raise UserError(
            f"micro_batch: found {config.micro_batch}, which does not divide the {own} labelled "
            "images of a process; use a divisor of it"
        )
    return config.micro_batch or own


def training_loader(
    config: Config,
    lists: Lists,
    images: int,
    strong_views: int,
    place: Place,
) -> DataLoader:
    """Batches of raw samples (see `make_views`) of one process.

    `images` (labelled, and unlabelled as well) make a global batch.
    """
    labeled, unlabeled = lists.labeled.samples, lists.unlabeled.samples
    steps = steps_per_epoch(config, len(labeled), len(unlabeled), images)
    dataset = TrainingSet(
        config.data.root,
        labeled,
        unlabeled,
        length=steps * images,
        crop_size=config.crop_size,
        num_classes=config.num_classes,
        reduce_zero_label=config.data.reduce_zero_label,
        strong_views=strong_views,
        partner=config.cutmix_partner,
        seed=config.seed,
    )
    return DataLoader(
        dataset,
        batch_sampler=EpochBatches(steps, images, place),
        num_workers=place.workers,
        persistent_workers=place.workers > 0,
        pin_memory=place.cuda,
    )


def at_epoch(loader: DataLoader, epoch: int) -> DataLoader:
    """A training loader that yields this epoch next."""
    batches = loader.batch_sampler
    assert isinstance(batches, EpochBatches)
    batches.epoch = epoch
    return loader


def evaluation_loader(config: Config, samples: list[Sample], place: Place) -> DataLoader:
    """Every `world`-th image from `rank` on, whole, one at a time: each is counted once."""
    dataset = EvaluationSet(
        config.data.root, samples, config.num_classes, config.data.reduce_zero_label
    )
    return DataLoader(
        dataset,
        sampler=list(range(place.rank, len(samples), place.world)),
        num_workers=place.workers,
        pin_memory=place.cuda,
    )


def map_tensors(function: Callable[[Tensor], Tensor], batch: Any) -> Any:
    """A nested batch of dicts and lists with `function` applied to every tensor."""
    if isinstance(batch, dict):
        return {k: map_tensors(function, v) for k, v in batch.items()}
    if isinstance(batch, list):
        return [map_tensors(function, v) for v in batch]
    return function(batch)


def to_device(batch: Any, device: torch.device) -> Any:
    return map_tensors(lambda x: x.to(device, non_blocking=True), batch)


def split_batch(batch: Any, size: int | None) -> list[Any]:
    """A batch cut into parts of `size` samples, or whole."""
    images = len(batch["labeled"]["image"])
    size = size or images
    parts = (slice(first, first + size) for first in range(0, images, size))
    return [map_tensors(itemgetter(part), batch) for part in parts]
