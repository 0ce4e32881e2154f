"""Gradients and scores of several processes, to compare with those of a single process.

`python -m tests.gradients CONFIG FOLDER` writes the gradients of the first step of each method to
FOLDER/gradients.pth, and the validation of process R to FOLDER/seen-R.json. Differences by design
are removed: no batch statistics, and no random draws per process (dropout, CorrMatch's regions).
"""

import contextlib
import json
import sys
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from engine.command import build_trainer
from engine.run_dir import RunDir
from engine.validation import evaluate_network
from tests.conftest import METHODS
from tests.golden import fill
from util import distributed
from util.config.loading import load_config

NOT_DRAWN = {
    "torch.nn.functional.dropout2d": lambda x, *_: x,
    "corrmatch.sample_rows": lambda correlation, count: torch.arange(count) % correlation.shape[1],
    "unimatch_v2.draw_complementary": lambda features: [
        torch.ones(len(f) // 2, f.shape[1]) for f in features
    ],
}
OPTIONS = {
    "corrmatch": ["method.thresh_init=0.35"],
    "prevmatch": ["method.model_num=1"],
    "rankmatch": ["method.rank_weight=10000"],
}


def calm(method):
    """Set golden weights, remove batch statistics and dropout; give PrevMatch a previous model."""
    fill(method.model)
    if hasattr(method, "correlation"):
        fill(method.correlation)
    for module in method.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval().train = lambda mode=True, module=module: module
        elif isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    if hasattr(method, "keep_snapshot"):
        method.keep_snapshot({name: 0.9 * v for name, v in method.model.state_dict().items()})
        method.epoch = 1


def prepared(name, config, folder, *settings):
    config = load_config(config, [*OPTIONS.get(name, []), *settings])
    run, device = RunDir(folder / "run"), torch.device("cpu")
    return build_trainer(METHODS[name], config, device, run, "never")


def gradient(training, raw=None):
    """Return all parameters' gradients in one tensor, for `raw` or else the first batch."""
    calm(training.method)
    raw = raw or next(iter(training.train_loader))
    with contextlib.ExitStack() as stack:
        for place, instead in NOT_DRAWN.items():
            stack.enter_context(mock.patch(place, instead))
        training.optimize(raw, training.steps_done)
    return torch.cat([p.grad.flatten() for p in training.method.parameters() if p.requires_grad])


def seen(training):
    """Return the validation images and the confusion matrix."""
    mode = training.config.evaluation.mode
    scores = evaluate_network(training, training.method.model, mode)
    return {
        "validated": [int(batch["index"]) for batch in training.val_loader],
        "confusion": scores.confusion.tolist(),
    }


def main():
    config, folder = map(Path, sys.argv[1:])
    with distributed.session(torch.device("cpu")):
        found = {name: gradient(prepared(name, config, folder)) for name in METHODS}
        if distributed.is_main():
            torch.save(found, folder / "gradients.pth")
        record = json.dumps(seen(prepared("supervised", config, folder)))
        (folder / f"seen-{distributed.rank()}.json").write_text(record)


if __name__ == "__main__":
    main()
