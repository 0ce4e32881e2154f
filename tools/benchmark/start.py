"""Start-up: from the command to the first step, with lists as long as Pascal's, or longer."""

import argparse
import subprocess
import sys
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dataset.validation import check_files, read_lists
from engine.build import build_trainer
from engine.run_dir import RunDir
from tools.benchmark import photos
from tools.benchmark.measure import read, seconds
from tools.benchmark.options import KINDS
from tools.methods import method_of
from util import distributed

FOLDER = 1000
"""Images in a folder."""


def run(options: argparse.Namespace) -> None:
    """Print seconds by part; the files have been written just before, so they are in the cache."""
    kind = method_of(options.method)
    with TemporaryDirectory(dir=options.tmp) as folder:
        data = photos.make_dataset(Path(folder), options.images)
        lengthen(data, dict(zip(KINDS, options.counts, strict=True)))
        config, device = read(options, data=data), distributed.choose_device(options.device)
        with seconds("imports"):
            subprocess.run([sys.executable, "-c", f"import {options.method}"], check=True)
        with seconds("reading lists"):
            lists = read_lists(config.data, kind.unlabeled)
        with seconds("checking files"):
            check_files(config.data, *lists, warn=lambda _: None)
        with seconds("both, and the network"):
            place = RunDir(Path(folder, "run"))
            training = build_trainer(kind, config, device, place, "never")
        with seconds("first batch"):
            raw = next(iter(training.train))
        with seconds("first step"):
            training.train_step(raw)["loss"].item()


def lengthen(data: dict[str, Any], counts: dict[str, int]) -> None:
    """Make the lists of a dataset longer: its own files under many names, as hard links."""
    root = Path(data["root"])
    for kind, count in counts.items():
        lines = Path(data[kind]).read_text().splitlines()
        longer = []
        for number, line in enumerate(islice(cycle(lines), count)):
            names = []
            for file in map(Path, line.split("\t")):
                name = f"{kind}/{file.parent}{number // FOLDER}/{number}{file.suffix}"
                if number % FOLDER == 0:
                    (root / name).parent.mkdir(parents=True)
                (root / name).hardlink_to((root / file).resolve())
                names.append(name)
            longer.append("\t".join(names) + "\n")
        Path(data[kind]).write_text("".join(longer))
