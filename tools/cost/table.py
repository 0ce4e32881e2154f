"""Print the costs of configs and methods as a table."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dataset.loaders import data_workers, images_per_forward
from engine.cost import GIB, MEMORY_KINDS
from engine.estimate import (
    GPU_SIZES_GIB,
    PEAK_TFLOPS,
    Requirements,
    minimum_times,
    run_requirements,
    step_seconds,
)
from engine.method import Method
from tools.methods import method_of, methods_of
from util.config.loading import load_config
from util.config.schema import Config
from util.errors import UserError, print_error
from util.io import write_text
from util.tables import markdown_row, markdown_table

STEPS = 10_000
"""Number of steps for the times in the table."""
HEAD = [
    "config", "method", "images", "precision", "peak", *MEMORY_KINDS, "TFLOP", *GPU_SIZES_GIB,
    "disk", *PEAK_TFLOPS,
]  # fmt: skip
"""Memory in GiB; images of a forward pass that fit, by the GiB of a GPU; least time of 10 000 steps
by GPU."""


def print_table(args: argparse.Namespace) -> int:
    """Print the costs of all configs and methods; return the exit code."""
    runs = []
    for path in args.configs:
        for name in methods_of(path, args.methods):
            method, config = method_of(name), load_config(path, args.set)
            method.read_options(config)
            images = images_per_forward(config, method.images_per_step(config), args.processes)
            runs.append((path, method, config, images))
    records, problems = [], []
    print(markdown_table([HEAD], "<<>"), flush=True)
    for path, method, config, images in tqdm(runs, unit="run", disable=None):
        try:
            workers = data_workers(config, args.processes)
            requirements = run_requirements(method, config, args.processes, workers)
        except UserError as error:
            problems.append(f"{path}, {method.__name__}: {error}")
            continue
        print(markdown_row(cells(path, method, config, images, requirements)), flush=True)
        records.append(record(path, method, config, images, requirements))
    if args.json and records:
        write_text(args.json, json.dumps(records, indent=1) + "\n")
    for problem in problems:
        print_error(problem)
    return 1 if problems else 0


def cells(
    path: Path, method: type[Method], config: Config, images: int, requirements: Requirements
) -> list[str]:
    """Return a row of the table; `images`: labelled images of a forward pass."""
    cost = requirements.cost
    times = minimum_times(cost.tflop, config, STEPS)
    fits = {n: str(n) for n in requirements.per_forward.values()} | {images: "whole", None: "no"}
    return [
        path.stem,
        method.__name__,
        f"{images} + {images}" if method.unlabeled else str(images),
        config.precision,
        *(
            f"{size / GIB:.2f}"
            for size in (cost.peak, *(getattr(cost, kind) for kind in MEMORY_KINDS))
        ),
        f"{cost.tflop:.2f}",
        *(fits[n] for n in requirements.per_forward.values()),
        f"{requirements.disk / GIB:.1f}",
        *(times.get(gpu, "") for gpu in PEAK_TFLOPS),
    ]


def record(
    path: Path, method: type[Method], config: Config, images: int, requirements: Requirements
) -> dict[str, Any]:
    """Return all numbers: bytes, and seconds of a step."""
    return {
        "report": "tools.cost",
        "config": str(path),
        "method": method.__name__,
        "images": images,
        "precision": config.precision,
        "peak": requirements.cost.peak,
        **asdict(requirements.cost),
        "images_per_forward": requirements.per_forward,
        "host": requirements.host,
        "disk": requirements.disk,
        "step_seconds": step_seconds(requirements.cost.tflop, config),
    }
