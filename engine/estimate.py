"""Requirements of a run, from the cost of a step: GPUs, memory, disk, time."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from engine.cost import GIB, MEMORY_KINDS, Cost, step_cost
from engine.method import Method
from util.config.schema import Config
from util.errors import UserError, duration
from util.log import wrap_words

TITLE = "GPU memory and time, estimated from shapes alone (per process)"
GPU_SIZES_GIB = {"8": 8, "11/12": 11, "16": 16, "24": 24, "40/48": 40, "80": 80}
"""GiB of a GPU, by name; of two sizes the smaller one counts."""
CUDA_CONTEXT_BYTES = 0.75 * GIB
"""Assumed GPU memory of CUDA and its libraries."""
FRAGMENTATION_FACTOR = 1.1
"""Assumed factor of a step's memory, for fragmentation and workspaces of convolutions."""

PEAK_TFLOPS = {
    "RTX 3090": {"float32": 35.6, "tf32": 35.6, "16 bits": 71},
    "RTX 4090": {"float32": 82.6, "tf32": 82.6, "16 bits": 165},
    "A100": {"float32": 19.5, "tf32": 156, "16 bits": 312},
    "H100": {"float32": 66.9, "tf32": 495, "16 bits": 989},
}
"""TFLOP per second without sparsity, by their makers (16 bits: summed in float32)."""
UTILISATION = 0.35
"""Assumed share of these rates in training."""
MIN_STEP_SECONDS = 0.01
"""Arithmetic of a step below which loading images and launching kernels dominate its time."""

PROCESS_BYTES = 2 * GIB
"""Assumed host memory of a process with torch and CUDA."""
WORKER_BYTES = GIB // 16
"""Assumed host memory of a data worker, without the shared part."""
PREFETCHED_BATCHES = 2
"""Batches that a data worker prefetches: torch's default."""


class Requirements(NamedTuple):
    """Requirements of one process of a run."""

    cost: Cost
    per_forward: dict[str, int | None]
    """Largest `micro_batch` (labelled images in a forward pass) that fits, by GPU; None if none
    does."""
    host: int
    """Bytes of host memory, data workers included."""
    disk: int
    """Bytes of the checkpoints: latest, previous, best of each network, and one being written."""


def run_requirements(
    method_class: type[Method], config: Config, world: int, workers: int
) -> Requirements:
    """Return the requirements of each of `world` processes with this many data workers.

    Tries smaller micro-batches where a step does not fit. Raises `UserError` as `step_cost`.
    """
    num_images = method_class.images_per_step(config) // world
    wanted = config.micro_batch or num_images
    cost = step_cost(method_class, config, num_images, wanted, world)
    peaks = {wanted: cost.peak}
    for fewer in (n for n in range(wanted - 1, 0, -1) if num_images % n == 0):
        if all(largest_batch(peaks).values()):
            break
        try:
            peaks[fewer] = step_cost(method_class, config, num_images, fewer, world).peak
        except UserError:  # the network's batch norm needs more images
            break
    loaded = workers * (WORKER_BYTES + PREFETCHED_BATCHES * cost.batch)
    kept = max(0, cost.checkpoint - cost.weights - cost.optimizer)  # snapshots of previous models
    host = int(PROCESS_BYTES + config.data.cache_mb * 2**20 + loaded + cost.checkpoint + kept)
    return Requirements(cost, largest_batch(peaks), host, cost.checkpoint * (3 + cost.networks))


def largest_batch(peaks: Mapping[int, int]) -> dict[str, int | None]:
    """Return, by GPU, the largest number of images whose peak memory fits, if any.

    `peaks`: bytes by number of images.
    """
    limits = {
        gpu: (size * GIB - CUDA_CONTEXT_BYTES) / FRAGMENTATION_FACTOR
        for gpu, size in GPU_SIZES_GIB.items()
    }
    return {
        gpu: max((images for images, peak in peaks.items() if peak <= limit), default=None)
        for gpu, limit in limits.items()
    }


def step_seconds(tflop: float, config: Config) -> dict[str, float]:
    """Return the seconds of a step by GPU, estimated from its arithmetic only."""
    # By torch's default, convolutions use TF32, and the matrix products of a ViT do not.
    tf32 = config.model.network != "dpt" if config.tf32 is None else config.tf32
    unit = "16 bits" if config.precision != "float32" else "tf32" if tf32 else "float32"
    return {gpu: tflop / (UTILISATION * rates[unit]) for gpu, rates in PEAK_TFLOPS.items()}


def minimum_times(tflop: float, config: Config, steps: int) -> dict[str, str]:
    """Return the least time of `steps` by GPU, in words, where a step's arithmetic dominates."""
    seconds = step_seconds(tflop, config).items()
    return {gpu: duration(steps * s) for gpu, s in seconds if s >= MIN_STEP_SECONDS}


def fitting_gpus(requirements: Requirements, wanted: int) -> str:
    """Return the least size of a GPU that holds a step of `wanted` images, the `micro_batch` that
    smaller ones need, and the sizes that are too small."""
    gpus: dict[int | None, list[str]] = {}
    for gpu, micro_batch in requirements.per_forward.items():
        gpus.setdefault(micro_batch, []).append(gpu)
    sizes = {micro_batch: f"{', '.join(names)} GiB" for micro_batch, names in gpus.items()}
    parts = ["no GPU with this micro_batch"]
    if sizes.pop(wanted, None):
        parts = [f"every GPU of at least {GPU_SIZES_GIB[gpus[wanted][0]]} GiB"]
    too_small = sizes.pop(None, None)
    parts += [f"{sizes[fewer]} with micro_batch {fewer}" for fewer in reversed(sizes)]
    if too_small:
        parts.append(f"not on {too_small}")
    return "; ".join(parts)


def describe_step(cost: Cost, config: Config, steps: int, run_title: str = "whole run") -> str:
    """Describe memory and arithmetic of a step, and the time of `steps`, titled `run_title`."""
    kinds = ", ".join(f"{name} {getattr(cost, name) / GIB:.2f}" for name in MEMORY_KINDS)
    times = ", ".join(map(" ".join, minimum_times(cost.tflop, config, steps).items()))
    least = f"at least (by arithmetic alone), at {UTILISATION:.0%} of the peak rate: {times}"
    tiny = "not estimated: the arithmetic of a step takes under 10 ms on a GPU"
    return fact_lines(
        {
            "memory of a step": f"{cost.peak / GIB:.2f} GiB at its peak: {kinds}",
            "arithmetic of a step": f"{cost.tflop:.3g} TFLOP",
            run_title: least if times else tiny,
        }
    )


def describe_requirements(
    requirements: Requirements, method_class: type[Method], config: Config, world: int, steps: int
) -> str:
    """Describe what a run of `steps` needs, for `--dry-run`."""
    wanted = config.micro_batch or method_class.images_per_step(config) // world
    return f"{TITLE}\n{describe_step(requirements.cost, config, steps)}\n" + fact_lines(
        {
            "fits on": fitting_gpus(requirements, wanted),
            "memory of the host": f"about {requirements.host / GIB:.1f} GiB, data workers included",
            "checkpoints": f"at most {requirements.disk / GIB:.2f} GiB of disk",
        }
    )


def fact_lines(facts: Mapping[str, str]) -> str:
    """Return lines of title and text; a long text continues after one of its commas."""
    return "\n".join(
        wrap_words(*re.split("(?<=[,;]) ", text), first=f"  {title:<20}  ", rest=" " * 24)
        for title, text in facts.items()
    )
