"""`--dry-run`: everything a run does, once, and what the whole of it would take."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from dataset.loaders import batch_at, data_workers
from engine.method import Method
from engine.needs import describe, run_needs
from util import dist
from util.config import Config
from util.errors import UserError
from util.log import logger


def rehearse(
    config: Config,
    device: torch.device,
    network: nn.Module,
    train: DataLoader,
    step: Callable[[Any], dict[str, torch.Tensor]],
    validate_one: Callable[[], Any],
    val_images: int,
) -> None:
    """Two steps (the second is timed), its batch loaded once more and one validation image; logs a
    summary."""
    for number, raw in enumerate(train):
        begin = _now(device)
        loss = step(raw)["loss"].item()
        step_seconds = _now(device) - begin
        if number == 1:
            break
    load_seconds = _seconds_to_load(train)
    begin = _now(device)
    validate_one()
    image_seconds = _now(device) - begin

    parameters = sum(p.numel() for p in network.parameters())
    steps, mode = len(train), config.evaluation.mode
    validation = val_images * image_seconds / config.evaluation.every
    workers = train.num_workers  # load while the device computes, unless there are none
    waited = load_seconds / max(workers, 1)
    bound = "loading" if waited > step_seconds else "computing"
    both = max(step_seconds, waited) if workers else step_seconds + waited
    hours = config.epochs * (steps * both + validation) / 3600
    logger.info(
        "dry run: all well\n"
        f"  parameters            {parameters / 1e6:.1f} M\n"
        f"  iterations per epoch  {steps}, {steps * config.epochs} in all\n"
        f"  loss of one step      {loss:.3f}\n"
        f"  one step              {step_seconds:.3f} s\n"
        f"  loading its batch     {load_seconds:.3f} s of one process, {workers} data workers\n"
        f"  one validation image  {image_seconds:.3f} s ({mode}), {val_images} images\n"
        f"  memory                {dist.peak_memory(device) / 2**30:.2f} GiB at its peak\n"
        f"  whole run             about {hours:.2f} h, bound by {bound}"
    )


def _seconds_to_load(train: DataLoader) -> float:
    """How long a data worker takes for a batch, with the one thread that it has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    begin = time.perf_counter()
    batch_at(train, 1)
    seconds = time.perf_counter() - begin
    torch.set_num_threads(threads)
    return seconds


def say_needs(method_class: type[Method], config: Config, steps: int) -> None:
    """Log what a run of `steps` needs of a GPU; one line says so where torch cannot tell."""
    if not dist.is_main():
        return
    world, workers = dist.world_size(), data_workers(config, dist.processes_here())
    try:
        needs = run_needs(method_class, config, world, workers)
        text = describe(needs, method_class, config, world, steps)
    except UserError as error:
        text = f"what it needs of a GPU {error}"
    logger.info("%s", text)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
