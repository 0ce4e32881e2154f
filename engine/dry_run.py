"""`--dry-run`: a few steps and validation images, and an estimate of the whole run."""

import copy
import math
import time
from collections.abc import Callable
from contextlib import suppress
from statistics import median
from typing import Any, NamedTuple

import torch
from torch.utils.data import default_collate

from dataset.cache import DecodedSamples
from dataset.loaders import TrainingLoader, data_workers
from engine.cost import simulate_best_epochs, step_cost
from engine.estimate import describe_requirements, fact_lines, run_requirements
from engine.method import Method
from engine.trainer import Trainer
from engine.validation import evaluate_network
from engine.visualize import take_pictures
from util import distributed
from util.config.schema import Config
from util.errors import UserError, counted, duration
from util.log import logger

HOURS_PER_DAY = 24
MAX_TIMED_CALLS = 5
"""Largest number of timed calls of a step, of a validation image, and of their loading."""
MAX_TIMED_SECONDS = 5.0
"""Seconds after which no further call is timed."""
SMALL_NETWORKS: dict[str, tuple[dict[str, Any], int]] = {
    "deeplabv3plus": ({"backbone": "resnet18", "channels": 64, "pretrained": "hub"}, 193),
    "pspnet": ({"backbone": "resnet18", "pretrained": "hub"}, 193),
    "dpt": ({"backbone": "vit_small_patch14_dinov2", "pretrained": "hub"}, 196),
}
"""Settings of a small network and its crop size, by `model.network`; of others, the crop only."""


class Measurements(NamedTuple):
    """Seconds measured on this machine, and the loss of a step."""

    loss: float
    step: float
    load: float
    """Loading a batch, in one process."""
    image: float
    """Validating an image, with all networks."""
    image_load: float
    """Loading an image once for each network, in one process."""
    workers: int

    def hours(self, epochs: int, steps: int, images: int, every: int) -> float:
        """Return the hours of epochs of `steps`, with `images` validated in every `every`-th."""
        one_step = _seconds_with_loading(self.step, self.load, self.workers)
        one_image = _seconds_with_loading(self.image, self.image_load, self.workers)
        return epochs * (steps * one_step + images * one_image / every) / 3600


def measure(trainer: Trainer) -> Measurements:
    """Time steps and validation images, each after a first one, and their loading."""
    train_loader = trainer.train_loader
    simulate_best_epochs(trainer.method, trainer.config.epochs)
    raw = next(iter(train_loader))  # data workers fetch ahead during the first step, then wait
    loss = trainer.optimize(raw, 0)["loss"].item()
    step = _median_seconds(lambda: trainer.optimize(raw, 1), trainer.device)
    float(trainer.method.threshold)  # fail now, not at a run's first validation
    if trainer.config.log.pictures:
        take_pictures(trainer)
    return Measurements(
        loss, step, _seconds_to_load(train_loader), *_validation(trainer), train_loader.num_workers
    )


def dry_run(trainer: Trainer) -> None:
    """Take a few steps, validate a few images, write nothing, and log what the run would take."""
    method_class, config = type(trainer.method), trainer.config
    steps, images = len(trainer.train_loader), len(trainer.val_loader)
    logger.info("dry run: estimating GPU memory, then timing a few steps and validation images")
    # First, as it helps where the steps run out of memory.
    log_gpu_requirements(method_class, config, steps=config.epochs * steps)
    measured = measure(trainer)

    parameters = sum(p.numel() for p in trainer.method.parameters() if p.requires_grad)
    networks = counted(len(trainer.method.eval_models()), "network")
    bound = "loading" if measured.load / max(measured.workers, 1) > measured.step else "computing"
    hours = measured.hours(config.epochs, steps, images, config.evaluation.every)
    memory = distributed.peak_memory(trainer.device) / 2**30
    memory_of = "GPU" if trainer.device.type == "cuda" else "process"
    workers = counted(measured.workers, "data worker")
    facts = {
        "trained parameters": f"{parameters / 1e6:.1f} M",
        "steps per epoch": f"{steps}, {steps * config.epochs} in all",
        "loss of one step": f"{measured.loss:.3f}",
        "one step": f"{measured.step:.3f} s",
        "loading a batch": f"{measured.load:.3f} s in one process; the run has {workers}",
        "one validation image": f"{measured.image:.3f} s ({config.evaluation.mode}), "
        f"{counted(images, 'image')}, {networks}",
        "loading an image": f"{measured.image_load:.3f} s in one process",
        f"peak {memory_of} memory": f"{memory:.2f} GiB",
        "whole run": f"{duration(3600 * hours)}, bound by {bound}",
    }
    logger.info("dry run: %s\n%s", _describe_loss(measured.loss), fact_lines(facts))
    if hours > HOURS_PER_DAY:
        offers = smaller_settings(method_class, config, measured, steps, images)
        logger.info("This run would take more than a day. Smaller settings:\n%s", "\n".join(offers))
    if math.isfinite(measured.loss):
        logger.info("next     the same command without --dry-run")


def _describe_loss(loss: float) -> str:
    if math.isfinite(loss):
        return "passed"
    return (
        f"the loss of its first step is {loss}; a run skips such steps. Fix: look at the images "
        "and masks, and at criterion.class_weights"
    )


def smaller_settings(
    method_class: type[Method], config: Config, measured: Measurements, steps: int, images: int
) -> list[str]:
    """Return lines of settings with which a run takes a day at most: fewer epochs; fewer epochs
    with a smaller network and crop, whose steps are estimated by their arithmetic."""
    model, crop = SMALL_NETWORKS.get(config.model.network, ({}, 192))
    crop = min(crop, config.crop_size)
    small = config.model_copy(
        update={"model": config.model.model_copy(update=model), "crop_size": crop}
    )
    ways = [(measured, "")]
    with suppress(UserError):  # torch cannot run a fake step
        share = _arithmetic(method_class, small) / _arithmetic(method_class, config)
        pixels = (config.crop_size / crop) ** 2  # a validation image keeps its size
        step, image = measured.step * share, measured.image * share * pixels
        settings = "".join(f"model.{key}={value} " for key, value in model.items())
        if share < 1:
            scaled = measured._replace(step=step, image=image)
            ways.append((scaled, f"{settings}crop_size={crop} "))
    lines = []
    for timing, settings in ways:
        hours = timing.hours(config.epochs, steps, images, config.evaluation.every)
        if epochs := min(config.epochs, int(config.epochs * HOURS_PER_DAY / hours)):
            total = duration(3600 * hours * epochs / config.epochs)
            lines.append(f"  --set {settings}epochs={epochs}: about {total}")
    init = "python -m tools.prepare init --preset small --time-budget 8h"
    return [*lines, f"  {init}: a config for images of your own"]


def _arithmetic(method_class: type[Method], config: Config) -> float:
    """Return the TFLOP of a step of this process."""
    world = distributed.world_size()
    num_images = method_class.images_per_step(config) // world
    per_forward = config.micro_batch or num_images
    return step_cost(method_class, config, num_images, per_forward, world).tflop


def _validation(trainer: Trainer) -> tuple[float, float]:
    """Return the seconds that a validation image takes with all networks, and those to load it for
    each of them.

    The first image is scored before the last one is timed.
    """
    networks = trainer.method.eval_models().values()
    images = trainer.val_loader.dataset
    mode = trainer.config.evaluation.mode
    last = len(images) - 1  # type: ignore[arg-type]
    first_batch, last_batch = (default_collate([images[index]]) for index in (0, last))

    def score(batch: dict[str, Any]) -> None:
        for network in networks:
            evaluate_network(trainer, network, mode, batches=[batch])

    score(first_batch)
    seconds = _median_seconds(lambda: score(last_batch), trainer.device)
    return seconds, len(networks) * _seconds_of_a_worker(lambda: images[last])


def _seconds_with_loading(seconds: float, load_seconds: float, workers: int) -> float:
    """Return the seconds with loading: data workers load while the device computes; without
    workers, each waits for the other."""
    return max(seconds, load_seconds / workers) if workers else seconds + load_seconds


def _seconds_to_load(train_loader: TrainingLoader) -> float:
    """Return the seconds that a data worker takes for a batch after the first epoch: a share of the
    labelled images is cached, and all of the unlabelled images or none."""
    dataset, batches = train_loader.dataset, train_loader.batch_sampler
    assert isinstance(dataset.labeled, DecodedSamples)
    cached_share = dataset.labeled.share_kept
    uncached = copy.deepcopy(dataset)  # caches nothing
    first, last = batches.keys(0, 0), batches.keys(0, len(batches) - 1)
    seconds = _seconds_of_a_worker(lambda: [dataset[key] for key in first])
    if cached_share < 1:
        uncached_seconds = _seconds_of_a_worker(lambda: [uncached[key] for key in last])
        seconds = cached_share * seconds + (1 - cached_share) * uncached_seconds
    return seconds


def _seconds_of_a_worker(load: Callable[[], Any]) -> float:
    """Return the seconds that `load` takes with one thread, as in a data worker."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds = _median_seconds(load, torch.device("cpu"))
    torch.set_num_threads(threads)
    return seconds


def _median_seconds(call: Callable[[], object], device: torch.device) -> float:
    """Return the median seconds of repeated calls: other programs may delay some of them.

    All ranks make as many calls as the first one has time for.
    """
    seconds: list[float] = []
    while distributed.on_main(
        lambda: not seconds or (len(seconds) < MAX_TIMED_CALLS and sum(seconds) < MAX_TIMED_SECONDS)
    ):
        begin = _now(device)
        call()
        seconds.append(_now(device) - begin)
    return median(seconds)


def log_gpu_requirements(method_class: type[Method], config: Config, steps: int) -> None:
    """Log the GPU memory and hours of a run of `steps`, or the reason why torch cannot tell."""
    if not distributed.is_main():
        return
    world = distributed.world_size()
    workers = data_workers(config, distributed.processes_here())
    try:
        requirements = run_requirements(method_class, config, world, workers)
        text = describe_requirements(requirements, method_class, config, world, steps)
    except UserError as error:
        text = str(error)
    logger.info("%s", text)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
