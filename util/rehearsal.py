"""`--dry-run`: everything a run does, once, and what the whole of it would take."""

import resource
import sys
import time
from typing import TYPE_CHECKING

import torch

from util.log import logger

if TYPE_CHECKING:
    from util.engine import Training


def rehearse(training: "Training") -> None:
    """Two steps (the second is timed) and one validation image; logs a summary."""
    config, device = training.config, training.device
    for number, raw in enumerate(training.train):
        begin = _now(device)
        loss = training.step(raw, number)["loss"].item()
        step_seconds = _now(device) - begin
        if number == 1:
            break
    mode = config.evaluation.mode
    begin = _now(device)
    training.evaluate(training.method.model, mode, limit=1)
    image_seconds = _now(device) - begin

    parameters = sum(p.numel() for p in training.method.model.parameters())
    images, epochs = len(training.volumes), config.epochs
    per_epoch = len(training.train) * step_seconds
    validation = images * image_seconds / config.evaluation.every
    hours = epochs * (per_epoch + validation) / 3600
    logger.info(
        "dry run: all well\n"
        f"  parameters            {parameters / 1e6:.1f} M\n"
        f"  iterations per epoch  {len(training.train)}, {len(training.train) * epochs} in all\n"
        f"  loss of one step      {loss:.3f}\n"
        f"  one step              {step_seconds:.3f} s\n"
        f"  one validation image  {image_seconds:.3f} s ({mode}), {images} images\n"
        f"  memory                {_peak_memory(device) / 2**30:.2f} GiB at its peak\n"
        f"  whole run             about {hours:.2f} h"
    )


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _peak_memory(device: torch.device) -> int:
    """Bytes: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
