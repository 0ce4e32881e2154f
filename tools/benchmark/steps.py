"""Time training steps: of a method under several settings, or of all methods."""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.cuda import memory_allocated

from engine.command import build_trainer
from engine.run_dir import RunDir
from tools.benchmark.data import data_section
from tools.benchmark.measure import Call, compare, read, report
from tools.benchmark.options import METHODS, SETTINGS
from tools.methods import method_of
from util import distributed
from util.config.schema import Config

TORCH_TF32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
"""PyTorch's own choice for matrix products and for convolutions."""


def run(args: argparse.Namespace) -> None:
    is_cpu = distributed.choose_device(args.device).type == "cpu"
    usual = [name for name in SETTINGS if not is_cpu or name not in ("tf32", "compiled")]
    cases = {n: (args.method, SETTINGS[n]) for n in args.settings or usual}
    if args.subject == "methods":
        cases = {script: (script, []) for script in METHODS}
    with tempfile.TemporaryDirectory() as folder:
        data = data_section(Path(folder), args)
        table = compare_steps(cases, args, data)
        config = read(args, data=data)
    notes = {
        "network": f"{config.model.network} {config.model.backbone}",
        "crop": config.crop_size,
        "batch": config.batch_size,
        "partner": config.cutmix_partner,
    }
    title = "all methods" if args.subject == "methods" else args.method
    report({title: table}, notes)


def compare_steps(
    cases: Mapping[str, tuple[str, list[str]]], args: argparse.Namespace, data: dict[str, Any]
) -> pd.DataFrame:
    """Measure steps in turn on `data` (a config's section); the memory includes network and
    optimizer.

    `cases`: scripts and settings by name.
    """
    device = distributed.choose_device(args.device)
    calls, kept_mebibytes = {}, {}
    for name, (script, keys) in cases.items():
        case = argparse.Namespace(**{**vars(args), "set": [*args.set, *keys]})
        config = read(case, data=data | {"workers": 0})
        before = memory_allocated()
        calls[name] = repeated_step(script, config, device)
        calls[name]()  # leaves gradients and the optimizer's state
        kept_mebibytes[name] = (memory_allocated() - before) / 2**20
    table = compare(calls, args)
    return table.assign(MiB=table.MiB + table.index.map(kept_mebibytes))


def repeated_step(script: str, config: Config, device: torch.device) -> Call:
    """Return a function that repeats a training step with the config's TF32 setting.

    Nothing is written. PrevMatch gets one snapshot.
    """
    folder = RunDir(config.data.root / "run")
    training = build_trainer(method_of(script), config, device, folder, "never")
    training.method.after_epoch(0, is_best=True)
    raw = next(iter(training.train_loader))
    tf32 = TORCH_TF32 if config.tf32 is None else (config.tf32, config.tf32)

    def call() -> dict[str, torch.Tensor]:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32
        return training.optimize(raw, 1)  # the first one checks the method

    return call
