"""Settings timed beside each other, in turn: medians, ratios to the first; table and JSON."""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from util import dist
from util.command import add_device, add_settings
from util.config import Config
from util.config_file import load_config
from util.errors import UserError
from util.log import versions
from util.writing import write_text

Call = Callable[[], object]


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


def add_config(parser: argparse.ArgumentParser) -> None:
    """The options of every benchmark that needs a config."""
    parser.add_argument("--config", default="configs/pascal.yaml", help="YAML file, see configs/")
    add_settings(parser)
    add_device(parser)


def add_common(parser: argparse.ArgumentParser, repeats: int = 7) -> None:
    """The options of every benchmark that compares settings."""
    add_config(parser)
    parser.add_argument("--repeats", type=int, default=repeats, help="rounds that are timed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")


def read(options: argparse.Namespace, on_top: dict[str, Any] | None = None) -> Config:
    """The config that the options name, with random weights; raises `UserError`."""
    return load_config(
        options.config, options.set, {"model": {"pretrained": "none"}, **(on_top or {})}
    )


def compare(
    settings: Mapping[str, Call], options: argparse.Namespace, work: float = 1
) -> list[Row]:
    """Time each setting once a round, after a round of warm-up; the first is the plain one.

    `work`: units that one call does.
    """
    if options.repeats < 1:
        raise UserError(f"--repeats {options.repeats}: expected at least 1")
    device = dist.choose_device(options.device)
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


def report(tables: list[Table], options: argparse.Namespace) -> None:
    """Print the tables, and write them as JSON where the options ask for it."""
    device = dist.choose_device(options.device)
    where = {**versions(), "device": _name(device), "threads": torch.get_num_threads()}
    print("  ".join(f"{k} {v}" for k, v in where.items()))
    for table in tables:
        print(f"\n{as_text(table)}")
    if options.json is None:
        return
    record = {
        **where,
        "config": str(options.config),
        "set": options.set,
        "repeats": options.repeats,
        "tables": [
            {**table._asdict(), "rows": [row._asdict() for row in table.rows]} for table in tables
        ],
    }
    write_text(options.json, json.dumps(record, indent=1) + "\n", f"--json {options.json}")


def as_text(table: Table) -> str:
    width = max(len(row.setting) for row in table.rows)
    lines = [f"{table.title}, per {table.unit}"]
    for row in table.rows:
        line = (
            f"  {row.setting:<{width}}  {1e3 * row.seconds:10.3f} ms"
            f"  ({1e3 * row.low:.3f} .. {1e3 * row.high:.3f})"
            f"  {1 / row.seconds:9.1f} a second  {row.ratio:6.2f} x"
        )
        lines.append(line + (f"  {row.memory / 2**20:8.0f} MiB" if row.memory else ""))
    lines += [f"  {key}: {value}" for key, value in table.notes.items()]
    return "\n".join(lines)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
