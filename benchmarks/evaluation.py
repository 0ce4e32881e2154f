"""Evaluation in sliding windows: ours by batch and precision, and window by window in float32."""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.measure import Table, add_common, compare, read, report
from model.build import build_network
from util import dist
from util.evaluation import predict_sliding, window_starts
from util.precision import autocast


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_common(parser, repeats=5)
    parser.add_argument("--size", type=int, nargs=2, default=(1024, 2048), metavar=("H", "W"))


def run(options: argparse.Namespace) -> None:
    report(measure(options), options)


@torch.no_grad()
def measure(options: argparse.Namespace) -> list[Table]:
    config = read(options)
    device, window = dist.choose_device(options.device), config.crop_size
    border = config.evaluation.window_border
    torch.manual_seed(0)
    network = build_network(config.model, config.num_classes).to(device).eval()
    image = torch.randn(1, 3, *options.size, device=device)
    batch = config.evaluation.window_batch

    def ours(size: int, precision: str = "float32") -> Callable[[], Tensor]:
        def call() -> Tensor:
            with autocast(device, precision):
                return predict_sliding(network, image, window, border, size)

        return call

    settings = {
        "plain": lambda: plain(network, image, window, border),
        "ours, windows in batches": ours(batch),
        "ours, bfloat16": ours(batch, "bfloat16"),
    }
    expected, found = settings["plain"](), settings["ours, windows in batches"]()
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    labels = settings["ours, bfloat16"]().argmax(1)
    notes = {
        "image": "{}x{}".format(*options.size),
        "window": window,
        "windows in a batch": batch,
        "network": f"{config.model.network} {config.model.backbone}",
        "pixels that bfloat16 labels alike": f"{(labels == expected.argmax(1)).float().mean():.4f}",
    }
    return [Table("sliding windows", "image", compare(settings, options), notes)]


def plain(model: nn.Module, image: Tensor, window: int, border: str) -> Tensor:
    """Softmax summed, one window after the other."""
    h, w = image.shape[-2:]
    total, stride = None, int(window * 2 / 3)
    for y in window_starts(h, window, stride, border):
        for x in window_starts(w, window, stride, border):
            part = image[:, :, y : y + window, x : x + window]
            scores = model(part).softmax(1)
            if total is None:
                total = image.new_zeros(1, scores.shape[1], h, w)
            total[:, :, y : y + window, x : x + window] += scores
    assert total is not None
    return total
