"""Evaluation in sliding windows: one after the other, in batches, and in bfloat16."""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from inference.predictor import predict_sliding
from model.build import network_of
from tools.benchmark.measure import compare, read, report
from util import distributed
from util.precision import autocast


@torch.no_grad()
def run(options: argparse.Namespace) -> None:
    config, device = read(options), distributed.choose_device(options.device)
    network = network_of(config.model, config.data).to(device).eval()
    image = torch.randn(1, config.data.channels, *options.size, device=device)
    batch = config.evaluation.window_batch

    def predict(size: int, precision: str = "float32") -> Callable[[], Tensor]:
        def call() -> Tensor:
            border = config.evaluation.window_border
            with autocast(device, precision):
                return predict_sliding(network, image, config.crop_size, border, size)

        return call

    settings = {
        "window by window": predict(1),
        "windows in batches": predict(batch),
        "in batches, bfloat16": predict(batch, "bfloat16"),
    }
    notes = {
        "image": "{}x{}".format(*options.size),
        "window": config.crop_size,
        "batch": batch,
        "network": f"{config.model.network} {config.model.backbone}",
    }
    report({"sliding windows": compare(settings, options)}, notes)
