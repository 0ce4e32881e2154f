"""Trainer steps: one method under several settings, all methods, or what parts of a step cost."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

from engine.build import build_trainer
from engine.run_dir import RunDir
from engine.trainer import Trainer
from tools.benchmark import photos
from tools.benchmark.measure import Call, Row, Table, compare, read, report
from tools.benchmark.options import METHODS
from tools.methods import method_of
from util import distributed
from util.config.schema import Config

PLAIN = ["precision=float32", "tf32=false", "channels_last=false", "compile=false"]
TUNED = [*PLAIN, "precision=bfloat16", "tf32=true", "channels_last=true"]
COMPILED = [*TUNED, "compile=true"]
SETTINGS = {
    "plain": PLAIN,
    "tf32": [*PLAIN, "tf32=true"],
    "channels_last": [*PLAIN, "channels_last=true"],
    "bfloat16": [*PLAIN, "precision=bfloat16"],
    "bfloat16, channels_last": TUNED,
    "bfloat16, channels_last, compile": COMPILED,
}
Cases = dict[str, tuple[str, list[str]]]
"""Script and settings, by name."""
PARTS: dict[str, Cases] = {
    "propagation": {  # one region of 128 stays
        "without": ("corrmatch", ["method.regions=1"]),
        "with": ("corrmatch", []),
    },
    "ranking": {"without": ("unimatch", []), "with": ("rankmatch", [])},
    "OHEM": {
        "without": ("supervised", ["criterion.name=ce"]),
        "with": ("supervised", ["criterion.name=ohem"]),
    },
}
"""Steps without a part, and with it."""


def run(options: argparse.Namespace) -> None:
    methods: dict[str, tuple[str, list[str]]] = {script: (script, []) for script in METHODS}
    settings = {name: (options.method, keys) for name, keys in SETTINGS.items()}
    if distributed.choose_device(options.device).type == "cpu":  # no TF32; compiles slowly
        del settings["tf32"], settings["bfloat16, channels_last, compile"]
    subjects = {"settings": {options.method: settings}, "methods": {"all methods": methods}}
    with tempfile.TemporaryDirectory() as folder:
        data = photos.data_section(Path(folder), options)
        tables = []
        for title, cases in {**subjects, "parts": PARTS}[options.subject].items():
            rows, _ = compare_steps(cases, options, data)
            config = read(options, data=data)
            notes = {
                "network": f"{config.model.network} {config.model.backbone}",
                "crop": config.crop_size,
                "images": f"{config.batch_size} labelled, {config.batch_size} unlabelled",
                "partner": config.cutmix_partner,
            }
            if options.subject == "parts":
                notes["share of the step"] = f"{1 - rows[1].ratio:.1%}"
            tables.append(Table(f"{options.subject}: {title}", "step", rows, notes))
    report(*tables)


def compare_steps(
    cases: Cases, options: argparse.Namespace, data: dict[str, Any]
) -> tuple[list[Row], dict[str, Call]]:
    """Steps beside each other, on `data` (a config's section), and calls that repeat them."""
    device, set_by_all = distributed.choose_device(options.device), options.set
    calls: dict[str, Call] = {}
    own: dict[str, int] = {}
    for name, (script, keys) in cases.items():
        here = argparse.Namespace(**{**vars(options), "set": [*set_by_all, *keys]})
        config, before = read(here, data=data | {"workers": 0}), allocated(device)
        calls[name] = repeated_step(training_of(script, config, device))
        calls[name]()  # leaves gradients and the optimizer's state
        own[name] = allocated(device) - before
    rows = compare(calls, options)
    return [row._replace(memory=row.memory + own[row.setting]) for row in rows], calls


def allocated(device: torch.device) -> int:
    """Bytes on a GPU; 0 where there is none."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def training_of(script: str, config: Config, device: torch.device) -> Trainer:
    """A training that writes nothing, after an epoch: PrevMatch has a previous model."""
    folder = RunDir(config.data.root / "run")
    training = build_trainer(method_of(script), config, device, folder, "never")
    training.method.after_epoch(0, is_best=True)
    return training


def repeated_step(training: Trainer) -> Call:
    """A call that runs the same batch again, as the first step of the run, under its own TF32;
    it returns the step's scalars."""
    raw, tf32 = next(iter(training.train)), bool(training.config.tf32)

    def call() -> dict[str, torch.Tensor]:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        return training.optimize(raw, 0)

    return call
