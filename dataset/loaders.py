"""Samplers and loaders; rank and world size determine the samples of a process."""

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
from util.errors import UserError, counted
from util.interrupt import ignore_signals
from util.log import logger
from util.workers import BATCH_TIMEOUT, START_METHOD, allow_open_files, require_short_tmpdir


class ProcessInfo(NamedTuple):
    """Rank, world size and data workers of the process that a loader serves."""

    rank: int
    world: int
    workers: int
    cuda: bool
    """True if batches go to a GPU."""


class ImageLoader(DataLoader):
    """A loader of the batches of an `ImageSet`, which raises the original failures."""

    def __init__(self, dataset: ImageSet, process: ProcessInfo, **options: Any):
        if process.workers:
            allow_open_files()
            require_short_tmpdir()
        super().__init__(
            dataset,
            collate_fn=_collate,
            num_workers=process.workers,
            multiprocessing_context=START_METHOD if process.workers else None,
            worker_init_fn=ignore_signals,
            timeout=BATCH_TIMEOUT if process.workers else 0,
            pin_memory=process.cuda,
            **options,
        )

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, FAILURES):
                raise batch
            yield batch


def _collate(samples: list[Any] | Exception) -> Any:
    return samples if isinstance(samples, Exception) else default_collate(samples)


class GlobalBatchSampler(Sampler[list[tuple[int, int]]]):
    """Keys (epoch, position) of the batches of one process: its part of every global batch.

    `TrainingLoader.start_at` sets the epoch and the step to begin with.
    """

    def __init__(self, steps: int, global_batch: int, process: ProcessInfo):
        self.steps = steps
        self.global_batch = global_batch
        self.process = process
        self.epoch = 0
        self.first_step = 0

    def __len__(self) -> int:
        """Steps of a whole epoch."""
        return self.steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return (self.keys(self.epoch, step) for step in range(self.first_step, self.steps))

    def keys(self, epoch: int, step: int) -> list[tuple[int, int]]:
        """Return the keys of a step."""
        per_process = self.global_batch // self.process.world
        first = step * self.global_batch + self.process.rank * per_process
        return [(epoch, position) for position in range(first, first + per_process)]


class TrainingLoader(ImageLoader):
    """A loader of the raw batches of one process (see `make_views`)."""

    dataset: TrainingSet
    batch_sampler: GlobalBatchSampler

    def start_at(self, epoch: int, step: int) -> "TrainingLoader":
        """Set the epoch and step that come next; return the loader."""
        self.batch_sampler.epoch = epoch
        self.batch_sampler.first_step = step
        return self

    def set_epoch_length(self, steps: int) -> None:
        """Set the number of steps in an epoch."""
        self.batch_sampler.steps = steps
        self.dataset.length = steps * self.batch_sampler.global_batch

    def batch_at(self, step: int) -> Any:
        """Load the raw batch of a step again, counted over the whole run."""
        keys = self.batch_sampler.keys(*divmod(step, len(self)))
        return default_collate([self.dataset[key] for key in keys])


def steps_per_epoch(config: Config, labeled: int, unlabeled: int, global_batch: int) -> int:
    """Return `epoch_length`, or the steps of one pass over the longer split, at least one;
    `labeled`, `unlabeled`, `global_batch`: numbers of images in the splits and of each in a step.
    """
    return config.epoch_length or max(1, max(labeled, unlabeled) // global_batch)


def data_workers(config: Config, processes: int) -> int:
    """Return the number of data workers of one of `processes` on this machine: the config's number,
    else the cores of a process minus one (1 to 8)."""
    if config.data.workers is not None:
        return config.data.workers
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(8, cores // processes - 1))


def images_per_forward(config: Config, global_batch: int, world: int) -> int:
    """Return the number of labelled images in a forward pass of one process.

    Raises `UserError` for a batch that does not divide.
    """
    if global_batch % world:
        raise UserError(
            f"batch_size: a global batch of {counted(global_batch, 'labelled image')} cannot be "
            f"divided by {world} processes. Fix: use a multiple of {world}"
        )
    per_process = global_batch // world
    if config.micro_batch and per_process % config.micro_batch:
        raise UserError(
            f"micro_batch: found {config.micro_batch}, which does not divide the "
            f"{counted(per_process, 'labelled image')} of a process. Fix: use a divisor"
        )
    return config.micro_batch or per_process


def training_loader(
    config: Config,
    splits: Splits,
    cache_sizes: CacheBytes,
    global_batch: int,
    per_forward: int,
    strong_views: int,
    process: ProcessInfo,
) -> TrainingLoader:
    """Return the loader of a run's training batches.

    Args:
        cache_sizes: bytes for decoded images, by split.
        global_batch: number of labelled, and also of unlabelled, images in a step.
        per_forward: number of labelled images in a forward pass.
    """
    labeled = splits.labeled.samples
    unlabeled = splits.unlabeled.samples
    partner = effective_partner(config, per_forward)
    if unlabeled and partner != config.cutmix_partner:
        logger.info(
            "cutmix_partner: found %s, but a forward pass has only 1 image; using independent "
            "partner images (other)",
            config.cutmix_partner,
        )
    steps = steps_per_epoch(config, len(labeled), len(unlabeled), global_batch)
    reader = Reader(config.data)
    dataset = TrainingSet(
        config,
        DecodedSamples(reader, labeled, masks=True, capacity=cache_sizes.labeled),
        DecodedSamples(reader, unlabeled, masks=False, capacity=cache_sizes.unlabeled),
        length=steps * global_batch,
        strong_views=strong_views,
        cutmix_partner=partner,
    )
    batches = GlobalBatchSampler(steps, global_batch, process)
    is_persistent = process.workers > 0
    return TrainingLoader(dataset, process, batch_sampler=batches, persistent_workers=is_persistent)


def effective_partner(config: Config, per_forward: int) -> str:
    """Return `cutmix_partner`, or "other" where a forward pass has 1 image and so no partner."""
    partner = config.cutmix_partner
    return "other" if per_forward == 1 and partner in ("batch", "flip") else partner


def evaluation_loader(
    config: Config, samples: Sequence[Sample], process: ProcessInfo, capacity: int = 0
) -> ImageLoader:
    """Return a loader of every `world`-th whole image from `rank` on, one at a time.

    `capacity`: bytes for decoded images that the next evaluation reuses.
    """
    dataset = EvaluationSet(DecodedSamples(Reader(config.data), samples, True, capacity))
    indices = list(range(process.rank, len(samples), process.world))
    return ImageLoader(dataset, process, sampler=indices)


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
    num_images = len(batch["labeled"]["image"])
    size = size or num_images
    parts = (slice(first, first + size) for first in range(0, num_images, size))
    return [map_tensors(itemgetter(part), batch) for part in parts]
