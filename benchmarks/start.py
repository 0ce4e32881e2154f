"""Start-up: from the command to the first step, with lists as long as Pascal's."""

import argparse
import subprocess
import sys
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import photos
from benchmarks.measure import add_config, read, seconds
from benchmarks.step import add_method
from engine.method import method_of
from engine.run_folder import RunFolder
from engine.training import prepare
from util import dist

COUNTS = {"labeled": 1464, "unlabeled": 9118, "val": 1449}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    photos.add_arguments(parser)
    add_method(parser)


def run(options: argparse.Namespace) -> None:
    """Print seconds by part; the files have been written just before, so they are in the cache."""
    kind = method_of(options.method)
    with TemporaryDirectory() as folder:
        data = lengthened(photos.make_dataset(Path(folder), options.images), Path(folder))
        config, device = read(options, {"data": data}), dist.choose_device(options.device)
        with seconds("imports"):
            subprocess.run([sys.executable, "-c", f"import {options.method}"], check=True)
        with seconds("start-up"):
            with seconds("  checks, network"):
                place = RunFolder(Path(folder, "run"))
                training = prepare(kind, config, device, place, "never")
            with seconds("  first batch"):
                next(iter(training.train))


def lengthened(data: dict[str, Any], root: Path) -> dict[str, Any]:
    """The dataset with lists of COUNTS lines: its own files under many names."""
    for kind, count in COUNTS.items():
        lines = Path(data[kind]).read_text().splitlines()
        longer = []
        for number, line in enumerate(islice(cycle(lines), count)):
            files = [f"{kind}{number}/{file}" for file in line.split("\t")]
            for file, original in zip(files, line.split("\t"), strict=True):
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                (root / file).hardlink_to((root / original).resolve())
            longer.append("\t".join(files) + "\n")
        Path(data[kind]).write_text("".join(longer))
    return data
