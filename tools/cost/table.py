"""Print the costs of configs and methods as a table."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from dataset.loaders import data_workers, images_per_forward
from engine.cost import GIB, KINDS
from engine.estimate import CARDS, RATES, Needs, run_needs, step_seconds
from engine.method import Method
from tools.methods import method_of, methods_of
from util.config.loading import load_config
from util.config.schema import Config
from util.errors import UserError, duration, print_error
from util.io import write_text
from util.tables import markdown_row, markdown_table

STEPS = 10_000
"""Steps that take the times in the table."""

HEAD = [
    "config", "method", "images", "precision", "peak", *KINDS, "TFLOP", *CARDS, "disk", *RATES
]  # fmt: skip
"""Memory in GiB; images of a forward that fit, by the GiB of a GPU; time of 10 000 steps by GPU."""


class Run(NamedTuple):
    """A config with a method."""

    path: Path
    method_class: type[Method]
    config: Config
    images: int
    """Labelled images of a forward."""


def print_table(options: argparse.Namespace) -> int:
    """Print the costs of all configs and methods; return the exit code."""
    runs = [
        read(path, name, options.set, options.processes)
        for path in options.configs
        for name in methods_of(path, options.methods)
    ]
    records, problems = [], []
    print(markdown_table([HEAD], "<<>"), flush=True)
    for run in tqdm(runs, unit="run", disable=None):
        try:
            workers = data_workers(run.config, options.processes)
            needs = run_needs(run.method_class, run.config, options.processes, workers)
        except UserError as error:
            problems.append(f"{run.path}, {run.method_class.__name__}: {error}")
            continue
        print(markdown_row(cells(run, needs)), flush=True)
        records.append(record(run, needs))
    if options.json:
        write_text(options.json, json.dumps(records, indent=1) + "\n", f"--json {options.json}")
    for problem in problems:
        print_error(problem)
    return 1 if problems else 0


def read(path: Path, name: str, assignments: list[str], processes: int) -> Run:
    """Load a config for a method; raises `UserError` for an unknown method, options of another
    method, and a batch size that the number of processes does not divide."""
    if processes < 1:
        raise UserError(f"--processes: found {processes}, expected 1 or more")
    method_class, config = method_of(name), load_config(path, assignments)
    method_class.read_options(config)
    images = images_per_forward(config, method_class.images_per_step(config), processes)
    return Run(path, method_class, config, images)


def cells(run: Run, needs: Needs) -> list[str]:
    cost, config = needs.cost, run.config
    held = {images: str(images) for images in needs.per_forward.values()}
    held |= {run.images: "whole", None: "no"}
    times = (duration(STEPS * s) for s in step_seconds(cost.tflop, config).values())
    return [
        run.path.stem,
        run.method_class.__name__,
        f"{run.images} + {run.images}" if run.method_class.unlabeled else str(run.images),
        config.precision,
        *(f"{size / GIB:.2f}" for size in (cost.peak, *(getattr(cost, kind) for kind in KINDS))),
        f"{cost.tflop:.2f}",
        *(held[images] for images in needs.per_forward.values()),
        f"{needs.disk / GIB:.1f}",
        *times,
    ]


def record(run: Run, needs: Needs) -> dict[str, Any]:
    """Return all numbers: bytes, and seconds of a step."""
    return {
        "config": str(run.path),
        "method": run.method_class.__name__,
        "images": run.images,
        "precision": run.config.precision,
        "peak": needs.cost.peak,
        **asdict(needs.cost),
        "images_per_forward": needs.per_forward,
        "host": needs.host,
        "disk": needs.disk,
        "step_seconds": step_seconds(needs.cost.tflop, run.config),
    }
