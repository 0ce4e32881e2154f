"""Time training steps: of a method under several settings, of all methods, without some parts."""

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engine.command import build_trainer
from engine.run_dir import RunDir
from tools.benchmark.data import data_section
from tools.benchmark.measure import Call, allocated, compare, read, report
from tools.benchmark.options import METHODS, SETTINGS
from tools.methods import method_of
from util import distributed
from util.config.schema import Config

if TYPE_CHECKING:
    import pandas as pd

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
    is_cpu = distributed.choose_device(options.device).type == "cpu"
    usual = [name for name in SETTINGS if not is_cpu or name not in ("tf32", "compiled")]
    settings = {n: (options.method, SETTINGS[n]) for n in options.settings or usual}
    subjects: dict[str, dict[str, Cases]] = {
        "settings": {options.method: settings},
        "methods": {"all methods": {script: (script, []) for script in METHODS}},
        "parts": PARTS,
    }
    with tempfile.TemporaryDirectory() as folder:
        data = data_section(Path(folder), options)
        cases = subjects[options.subject]
        tables = {title: compare_steps(case, options, data) for title, case in cases.items()}
        config = read(options, data=data)
    notes = {
        "network": f"{config.model.network} {config.model.backbone}",
        "crop": config.crop_size,
        "batch": config.batch_size,
        "partner": config.cutmix_partner,
    }
    report(tables, notes)


def compare_steps(
    cases: Cases, options: argparse.Namespace, data: dict[str, Any]
) -> "pd.DataFrame":
    """Measure steps in turn on `data` (a config's section); the memory includes network and
    optimizer."""
    device, calls, own = distributed.choose_device(options.device), {}, {}
    for name, (script, keys) in cases.items():
        here = argparse.Namespace(**{**vars(options), "set": [*options.set, *keys]})
        config, before = read(here, data=data | {"workers": 0}), allocated(device)
        calls[name] = repeated_step(script, config, device)
        calls[name]()  # leaves gradients and the optimizer's state
        own[name] = (allocated(device) - before) / 2**20
    table = compare(calls, options)
    return table.assign(MiB=table.MiB + table.index.map(own))


def repeated_step(script: str, config: Config, device: torch.device) -> Call:
    """Return a call that repeats the first step of a training, which writes nothing; it sets the
    config's TF32, and PrevMatch has a previous model."""
    folder = RunDir(config.data.root / "run")
    training = build_trainer(method_of(script), config, device, folder, "never")
    training.method.after_epoch(0, is_best=True)
    raw, tf32 = next(iter(training.train)), bool(config.tf32)

    def call() -> dict[str, torch.Tensor]:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        return training.optimize(raw, 0)

    return call
