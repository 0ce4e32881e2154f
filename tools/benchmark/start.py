"""Time a training's start, from the command to the first step, with long split files."""

import argparse
import functools
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from dataset.validation import check_files, read_splits
from engine.command import build_trainer
from engine.run_dir import RunDir
from tools.benchmark.data import make_dataset
from tools.benchmark.measure import read, report
from tools.benchmark.options import KINDS
from tools.methods import method_of
from util import distributed
from util.errors import UserError
from util.paths import REPOSITORY

FOLDER = 1000
"""Images in a folder."""


def run(args: argparse.Namespace) -> None:
    """Print the seconds of each part, and those of this process; files are in the disk cache."""
    kind, found = method_of(args.method), {}

    def timed(part: str, call: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = call()
        found[part] = {"s": time.perf_counter() - wall, "s of CPU": time.process_time() - cpu}
        return result

    counts = dict(zip(KINDS, args.counts, strict=True))
    with TemporaryDirectory() as folder:
        data = make_dataset(Path(folder), args.images)
        try:
            lengthen(data, counts)
        except OSError as error:
            raise UserError(
                f"photos cannot be linked in {folder} ({error}). Fix: set TMPDIR to a folder on "
                "the file system of --images"
            ) from None
        config, device = read(args, data=data), distributed.choose_device(args.device)
        command = [sys.executable, "-c", f"import {args.method}"]
        timed("imports", lambda: subprocess.run(command, cwd=REPOSITORY, check=True))
        lists = timed("reading lists", lambda: read_splits(config.data, kind.unlabeled))
        timed("checking files", lambda: check_files(config.data, *lists))
        place = RunDir(Path(folder, "run"))
        build = functools.partial(build_trainer, kind, config, device, place, "never")
        training = timed("both, and the network", build)
        raw = timed("first batch", lambda: next(iter(training.train_loader)))
        timed("first step", lambda: training.optimize(raw, 0)["loss"].item())
    report({"start-up": pd.DataFrame(found).T}, counts)


def lengthen(data: dict[str, Any], counts: dict[str, int]) -> None:
    """Make the split files of a dataset longer with hard links to its own files."""
    root = Path(data["root"])
    for kind, count in counts.items():
        lines = Path(data[kind]).read_text().splitlines()
        longer = []
        for number, line in enumerate(islice(cycle(lines), count)):
            names = []
            for file in map(Path, line.split("\t")):
                names.append(f"{kind}/{file.parent}{number // FOLDER}/{number}{file.suffix}")
                (root / names[-1]).parent.mkdir(parents=True, exist_ok=True)
                (root / names[-1]).hardlink_to((root / file).resolve())
            longer.append("\t".join(names) + "\n")
        Path(data[kind]).write_text("".join(longer))
