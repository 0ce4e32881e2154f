"""Time evaluation with sliding windows: one by one, in batches, and in bfloat16."""

import argparse
from functools import partial

import torch
from torch import Tensor

from inference.predictor import predict_sliding, probabilities_of
from model.build import network_from_config
from tools.benchmark.measure import compare, read, report
from util import distributed
from util.precision import autocast


@torch.no_grad()
def run(args: argparse.Namespace) -> None:
    config, device = read(args), distributed.choose_device(args.device)
    network = network_from_config(config.model, config.data).to(device).eval()
    image = torch.randn(1, config.data.channels, *args.size, device=device)
    batch, border = config.evaluation.window_batch, config.evaluation.window_border

    def predict(windows: int, precision: str) -> Tensor:
        with autocast(device, precision):
            return predict_sliding(
                partial(probabilities_of, network), image, config.crop_size, border, windows
            )

    settings = {
        "window by window": partial(predict, 1, "float32"),
        "windows in batches": partial(predict, batch, "float32"),
        "in batches, bfloat16": partial(predict, batch, "bfloat16"),
    }
    notes = {
        "image": "{}x{}".format(*args.size),
        "window": config.crop_size,
        "batch": batch,
        "network": f"{config.model.network} {config.model.backbone}",
    }
    report({"sliding windows": compare(settings, args)}, notes)
