"""Samplers and loaders; rank and world size determine the samples of a process."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, default_collate

from dataset.cache import CacheBytes, DecodedSamples
from dataset.datasets import FAILURES, EvaluationSet, ImageSet, TrainingSet
from dataset.reader import Reader
from dataset.samples import Sample
from dataset.split_files import Splits
from util.config.schema import Config
from util.errors import UserError
from util.interrupt import ignore_first_signal
from util.workers import BATCH_TIMEOUT, START_METHOD, allow_open_files

logger = logging.getLogger("semi.data")


class Process(NamedTuple):
    """The process of a loader."""

    rank: int
    world: int
    workers: int
    """Data workers of this process."""
    cuda: bool
    """True where batches go to a GPU."""


class Batches(DataLoader):
    """A loader of the batches of an `ImageSet`, which raises the original failures."""

    def __init__(self, dataset: ImageSet, **options: Any):
        super().__init__(dataset, collate_fn=_collate, **options)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, FAILURES):
                raise batch
            yield batch


def _collate(samples: list[Any] | Exception) -> Any:
    return samples if isinstance(samples, Exception) else default_collate(samples)


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, position) of one process: its part of every global batch.

    `starting_at` sets the epoch and the step to begin with.
    """

    def __init__(self, steps: int, batch: int, process: Process):
        self.steps, self.batch, self.process = steps, batch, process
        self.epoch, self.first = 0, 0

    def __len__(self) -> int:
        """Steps of a whole epoch."""
        return self.steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return (self.keys(self.epoch, step) for step in range(self.first, self.steps))

    def keys(self, epoch: int, step: int) -> list[tuple[int, int]]:
        own = self.batch // self.process.world
        first = step * self.batch + self.process.rank * own
        return [(epoch, position) for position in range(first, first + own)]


def steps_per_epoch(config: Config, labeled: int, unlabeled: int, images: int) -> int:
    """Return the steps in one pass over the longer split (at least one), or `epoch_length`.

    `images`: labelled, and also unlabelled, images in a step.
    """
    return config.epoch_length or max(1, max(labeled, unlabeled) // images)


def data_workers(config: Config, processes: int) -> int:
    """Return the data workers of one of `processes` on this machine: the config's number, else one
    less than its cores (1 to 8)."""
    if config.data.workers is not None:
        return config.data.workers
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(8, cores // processes - 1))


def images_per_forward(config: Config, images: int, world: int) -> int:
    """Return the labelled images in a forward pass of one process; `images`: in a global batch.

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
    splits: Splits,
    room: CacheBytes,
    images: int,
    per_forward: int,
    strong_views: int,
    process: Process,
) -> DataLoader:
    """Return a loader of the raw batches of one process (see `make_views`).

    Args:
        room: bytes for decoded images.
        images: labelled, and also unlabelled, images in a global batch.
        per_forward: images in a forward pass.
    """
    labeled, unlabeled = splits.labeled.samples, splits.unlabeled.samples
    partner = effective_partner(config, per_forward)
    if unlabeled and partner != config.cutmix_partner:
        logger.info(
            "cutmix_partner: %s, but a forward sees a single image; partners are other images",
            config.cutmix_partner,
        )
    steps = steps_per_epoch(config, len(labeled), len(unlabeled), images)
    reader = Reader(config.data)
    dataset = TrainingSet(
        config,
        DecodedSamples(reader, labeled, masks=True, capacity=room.labeled),
        DecodedSamples(reader, unlabeled, masks=False, capacity=room.unlabeled),
        length=steps * images,
        strong_views=strong_views,
        partner=partner,
    )
    return _loader(
        dataset,
        process,
        tensors=tensors_per_batch(strong_views * config.data.dates if unlabeled else 0),
        batch_sampler=EpochBatches(steps, images, process),
        persistent_workers=process.workers > 0,
    )


def effective_partner(config: Config, per_forward: int) -> str:
    """Return `cutmix_partner`; "other" in place of partners of the batch where a forward sees one
    image."""
    found = config.cutmix_partner
    return "other" if per_forward == 1 and found in ("batch", "flip") else found


def starting_at(loader: DataLoader, epoch: int, step: int = 0) -> DataLoader:
    """Set the epoch and step that a training loader yields next; return the loader."""
    batches = loader.batch_sampler
    assert isinstance(batches, EpochBatches)
    batches.epoch, batches.first = epoch, step
    return loader


def set_epoch_length(loader: DataLoader, steps: int) -> None:
    """Set the number of steps in the epochs of a training loader."""
    batches, dataset = loader.batch_sampler, loader.dataset
    assert isinstance(batches, EpochBatches) and isinstance(dataset, TrainingSet)
    batches.steps, dataset.length = steps, steps * batches.batch


def batch_at(loader: DataLoader, step: int) -> Any:
    """Load the raw batch of a step again, counted over the whole run."""
    batches = loader.batch_sampler
    assert isinstance(batches, EpochBatches)
    keys = batches.keys(*divmod(step, len(batches)))
    return default_collate([loader.dataset[key] for key in keys])


def evaluation_loader(
    config: Config, samples: Sequence[Sample], process: Process, capacity: int = 0
) -> DataLoader:
    """Return a loader of every `world`-th whole image from `rank` on, one at a time.

    `capacity`: bytes for decoded images that the next evaluation reuses.
    """
    dataset = EvaluationSet(DecodedSamples(Reader(config.data), samples, True, capacity))
    own = list(range(process.rank, len(samples), process.world))
    return _loader(dataset, process, tensors=3, sampler=own)


def tensors_per_batch(views: int) -> int:
    """Return the number of tensors in a training batch with this many strong views of an image."""
    return 2 + 2 * (3 + 5 * views)  # labelled; unlabelled and the partner images


def _loader(dataset: ImageSet, process: Process, *, tensors: int, **batches: Any) -> Batches:
    """Return a loader as data workers need it; raises `UserError` as `allow_open_files` does.

    `tensors`: in a batch.
    """
    allow_open_files(process.workers, tensors)
    return Batches(
        dataset,
        num_workers=process.workers,
        multiprocessing_context=START_METHOD if process.workers else None,
        worker_init_fn=ignore_first_signal,
        timeout=BATCH_TIMEOUT if process.workers else 0,
        pin_memory=process.cuda,
        **batches,
    )


def map_tensors(function: Callable[[Tensor], Tensor], batch: Any) -> Any:
    """Apply a function to every tensor of a nested batch of dicts and lists."""
    if isinstance(batch, dict):
        return {k: map_tensors(function, v) for k, v in batch.items()}
    if isinstance(batch, list):
        return [map_tensors(function, v) for v in batch]
    return function(batch)


def to_device(batch: Any, device: torch.device) -> Any:
    return map_tensors(lambda x: x.to(device, non_blocking=True), batch)


def split_batch(batch: Any, size: int | None) -> list[Any]:
    """Split a batch into parts of `size` samples; one part without a size."""
    images = len(batch["labeled"]["image"])
    size = size or images
    parts = (slice(first, first + size) for first in range(0, images, size))
    return [map_tensors(itemgetter(part), batch) for part in parts]
