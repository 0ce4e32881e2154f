"""Time settings in turn; tables of medians, extremes and ratios to the first setting."""

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import torch

from util import distributed
from util.config.loading import load_config
from util.config.schema import Config
from util.log import versions
from util.tables import text_table

Call = Callable[[], Any]
DIGITS = {"ms": 3, "lowest": 3, "highest": 3, "a second": 1, "ratio": 2, "s": 2, "s of CPU": 2}


def read(args: argparse.Namespace, **on_top: Any) -> Config:
    """Load the config of the options, with random weights and the sections `on_top`."""
    filled = {key: section for key, section in on_top.items() if section}
    if "data" in filled:  # photos, without the class that the config may select by
        filled["evaluation"] = {"select": "miou", "volume_pattern": None}
    return load_config(args.config, args.set, {"model": {"pretrained": "none"}} | filled)


def compare(settings: Mapping[str, Call], args: argparse.Namespace, work: int = 1) -> pd.DataFrame:
    """Time each setting once a round, after a round of warm-up.

    Returns a row for each setting: median, lowest and highest milliseconds per unit of work (`work`
    per call), speed relative to the first setting (median over the rounds), and peak memory in MiB.
    """
    device = distributed.choose_device(args.device)
    rounds = range(args.repeats + 1)
    runs = [{name: timed(call, device) for name, call in settings.items()} for _ in rounds][1:]
    ms = pd.DataFrame([{name: 1e3 * s / work for name, (s, _) in run.items()} for run in runs])
    peaks = pd.DataFrame([{name: peak / 2**20 for name, (_, peak) in run.items()} for run in runs])
    return pd.DataFrame(
        {
            "ms": ms.median(),
            "lowest": ms.min(),
            "highest": ms.max(),
            "a second": 1e3 / ms.median(),
            "ratio": ms.rdiv(ms.iloc[:, 0], axis=0).median(),
            "MiB": peaks.max(),
        }
    )


def timed(call: Call, device: torch.device) -> tuple[float, int]:
    """Return the seconds of a call, and on a GPU the peak of the bytes that it allocates."""
    is_gpu = device.type == "cuda"
    if is_gpu:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    before, begin = torch.cuda.memory_allocated(), time.perf_counter()
    call()
    if is_gpu:
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - begin
    return seconds, torch.cuda.max_memory_allocated(device) - before if is_gpu else 0


def report(tables: Mapping[str, pd.DataFrame], notes: dict[str, Any]) -> None:
    """Print versions and notes, and the tables by title."""
    facts: dict[str, Any] = versions() | {"threads": torch.get_num_threads()} | notes
    print("  ".join(f"{key} {value}" for key, value in facts.items()))
    for title, table in tables.items():
        columns = [name for name in table if name != "MiB" or table[name].any()]
        rows = [
            [name, *(f"{row[column]:.{DIGITS.get(column, 0)}f}" for column in columns)]
            for name, row in table.iterrows()
        ]
        print("", text_table([[title, *columns], *rows], "<>"), sep="\n")
