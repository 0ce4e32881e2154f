"""Evaluation in sliding windows: one after the other, in batches, and in bfloat16."""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from inference.predictor import predict_sliding
from model.build import network_of
from tools.benchmark.measure import Table, compare, read, report
from util import distributed
from util.precision import autocast


def run(options: argparse.Namespace) -> None:
    report(measure(options))


@torch.no_grad()
def measure(options: argparse.Namespace) -> Table:
    config, device = read(options), distributed.choose_device(options.device)
    window, border = config.crop_size, config.evaluation.window_border
    torch.manual_seed(0)
    network = network_of(config.model, config.data).to(device).eval()
    image = torch.randn(1, config.data.channels, *options.size, device=device)
    batch = config.evaluation.window_batch

    def predict(size: int, precision: str = "float32") -> Callable[[], Tensor]:
        def call() -> Tensor:
            with autocast(device, precision):
                return predict_sliding(network, image, window, border, size)

        return call

    settings = {
        "window by window": predict(1),
        "windows in batches": predict(batch),
        "in batches, bfloat16": predict(batch, "bfloat16"),
    }
    labels, coarse = (settings[s]().argmax(1) for s in ("window by window", "in batches, bfloat16"))
    notes = {
        "image": "{}x{}".format(*options.size),
        "window": window,
        "windows in a batch": batch,
        "network": f"{config.model.network} {config.model.backbone}",
        "pixels that bfloat16 labels alike": f"{(labels == coarse).float().mean():.4f}",
    }
    return Table("sliding windows", "image", compare(settings, options), notes)
