"""Settings timed beside each other, in turn: medians, extremes, ratios to the first."""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import Any, NamedTuple

import torch

from util import distributed
from util.config.loading import load_config
from util.config.schema import Config
from util.errors import UserError
from util.log import versions
from util.tables import text_table

Call = Callable[[], Any]


class Run(NamedTuple):
    """One timed call."""

    seconds: float
    memory: int
    """Bytes allocated at its peak beyond those before it; 0 where there is no GPU."""


class Row(NamedTuple):
    """What a setting took; seconds per unit of work."""

    setting: str
    seconds: float
    low: float
    high: float
    ratio: float
    """How many times faster than the first setting: the median over the rounds."""
    memory: int


class Table(NamedTuple):
    title: str
    unit: str
    rows: list[Row]
    notes: dict[str, Any] = {}
    """What was set, and what else was found."""


def read(options: argparse.Namespace, **on_top: Any) -> Config:
    """The config that the options name, with random weights and these sections on top, if they
    hold anything; raises `UserError`."""
    filled = {key: section for key, section in on_top.items() if section}
    return load_config(options.config, options.set, {"model": {"pretrained": "none"}} | filled)


def compare(
    settings: Mapping[str, Call], options: argparse.Namespace, work: float = 1
) -> list[Row]:
    """Time each setting once a round, after a round of warm-up; the first is the plain one.

    `work`: units that one call does.
    """
    if options.repeats < 1:
        raise UserError(f"--repeats {options.repeats}: expected at least 1")
    device = distributed.choose_device(options.device)
    for call in settings.values():
        timed(call, device)
    runs: dict[str, list[Run]] = {name: [] for name in settings}
    for _ in range(options.repeats):
        for name, call in settings.items():
            runs[name].append(timed(call, device))
    plain = next(iter(runs.values()))
    rows = []
    for name, found in runs.items():
        seconds = [run.seconds / work for run in found]
        ratios = [p.seconds / run.seconds for p, run in zip(plain, found, strict=True)]
        memory = max(run.memory for run in found)
        rows.append(Row(name, median(seconds), min(seconds), max(seconds), median(ratios), memory))
    return rows


def timed(call: Call, device: torch.device) -> Run:
    """By CUDA events on a GPU, by the clock else."""
    if device.type != "cuda":
        begin = time.perf_counter()
        call()
        return Run(time.perf_counter() - begin, 0)
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) - before
    return Run(start.elapsed_time(end) / 1000, peak)


@contextmanager
def seconds(part: str) -> Iterator[None]:
    """Print what a part took."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{part:<24}{wall:>8.2f} s {cpu:>8.2f} s of CPU", flush=True)


def report(*tables: Table) -> None:
    """Print the tables, and what they were measured with."""
    print(
        "  ".join(f"{k} {v}" for k, v in versions().items()), f"threads {torch.get_num_threads()}"
    )
    for title, unit, rows, notes in tables:
        print(f"\n{title}, per {unit}")
        cells = [
            [row.setting, f"{1e3 * row.seconds:.3f} ms",
             f"({1e3 * row.low:.3f} .. {1e3 * row.high:.3f})", f"{1 / row.seconds:.1f} a second",
             f"{row.ratio:.2f} x", f"{row.memory / 2**20:.0f} MiB" if row.memory else ""]
            for row in rows
        ]  # fmt: skip
        print(text_table(cells, "<>", indent="  "))
        for key, value in notes.items():
            print(f"  {key}: {value}")
