"""Training steps of a method: precision, layout and compilation, against plain float32."""

import argparse
import tempfile
from pathlib import Path

import torch

from benchmarks import photos
from benchmarks.measure import Call, Table, add_common, compare, read, report
from engine.method import method_of
from engine.run_folder import RunFolder
from engine.training import Training, prepare
from util import dist

PLAIN = {"precision": "float32", "tf32": False, "channels_last": False, "compile": False}
FAST = {"precision": "bfloat16", "channels_last": True, "tf32": True}
SETTINGS = {
    "plain": {},
    "tf32": {"tf32": True},
    "channels_last": {"channels_last": True},
    "bfloat16": {"precision": "bfloat16"},
    "bfloat16, channels_last": FAST,
    "bfloat16, channels_last, compile": {**FAST, "compile": True},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_common(parser)
    photos.add_arguments(parser)
    add_method(parser)


def run(options: argparse.Namespace) -> None:
    report(measure(options), options)


def measure(options: argparse.Namespace) -> list[Table]:
    kind, device = method_of(options.method), dist.choose_device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        data = photos.make_dataset(Path(folder), options.images) | {"workers": 0}
        settings: dict[str, Call] = {}
        memory: dict[str, int] = {}
        for name, keys in SETTINGS.items():
            if device.type != "cuda" and (name == "tf32" or "compile" in keys):
                continue  # none of a CPU's; minutes of compiling
            before = torch.cuda.memory_allocated() if device.type == "cuda" else 0
            config = read(options, {"data": data, **PLAIN, **keys})
            training = prepare(kind, config, device, RunFolder(Path(folder, name)), "never")
            settings[name] = repeated_step(training)
            memory[name] = (torch.cuda.memory_allocated() if device.type == "cuda" else 0) - before
        rows = compare(settings, options)
    rows = [row._replace(memory=row.memory and row.memory + memory[row.setting]) for row in rows]
    notes = {
        "network": f"{config.model.network} {config.model.backbone}",
        "crop": config.crop_size,
        "images": f"{config.batch_size} labelled, {config.batch_size} unlabelled",
    }
    return [Table(f"steps of {kind.__name__}", "step", rows, notes)]


def repeated_step(training: Training) -> Call:
    """A call that runs the same batch again, as the first step of the run, under its own TF32."""
    raw, tf32 = next(iter(training.train)), bool(training.config.tf32)

    def call() -> None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        training.optimize(raw, 0)

    return call


def add_method(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--method", default="unimatch", metavar="SCRIPT", help="without .py")
