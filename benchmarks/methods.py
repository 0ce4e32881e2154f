"""Training steps of all methods on one network, against UniMatch: what each adds to it."""

import argparse
import tempfile
from pathlib import Path

import torch

from benchmarks import photos
from benchmarks.measure import Call, Table, add_common, compare, read, report
from benchmarks.step import method_of, repeated_step
from engine.run_folder import RunFolder
from engine.training import Training, prepare
from util import dist
from util.precision import autocast

SCRIPTS = {
    "UniMatch": "unimatch",
    "SupOnly": "supervised",
    "FixMatch": "fixmatch",
    "CorrMatch": "corrmatch",
    "RankMatch": "rankmatch",
    "UniMatch V2": "unimatch_v2",
    "PrevMatch, no previous model": "prevmatch",
    "PrevMatch, one previous model": "prevmatch",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_common(parser)
    photos.add_arguments(parser)


def run(options: argparse.Namespace) -> None:
    report(measure(options), options)


def measure(options: argparse.Namespace) -> list[Table]:
    device = dist.choose_device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        data = photos.make_dataset(Path(folder), options.images) | {"workers": 0}
        config = read(options, {"data": data})
        settings: dict[str, Call] = {}
        for name, script in SCRIPTS.items():
            place = RunFolder(Path(folder, name))
            training = prepare(method_of(script), config, device, place, "never")
            if name.endswith("one previous model"):
                training.method.after_epoch(0, is_best=True)
            settings[name] = repeated_step(training)
        settings["forward of unlabelled images"] = _forward(training)
        rows = compare(settings, options)
    notes = {
        "network": f"{config.model.network} {config.model.backbone}",
        "crop": config.crop_size,
        "images": f"{config.batch_size} labelled, {config.batch_size} unlabelled",
        "partner": config.cutmix_partner,
    }
    return [Table("steps of all methods", "step", rows, notes)]


def _forward(training: Training) -> Call:
    """A call that does what a previous model does: weak views and partners, no gradient."""
    config, network = training.config, training.method.model
    count = config.batch_size * (2 if config.cutmix_partner in ("other", "self") else 1)
    images = torch.randn(count, 3, config.crop_size, config.crop_size, device=training.device)

    def call() -> None:
        with torch.no_grad(), autocast(training.device, config.precision):
            network(images)

    return call
