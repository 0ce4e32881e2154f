"""The work of export.py: write a network as ONNX, TorchScript or safetensors, and compare it."""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from dataset.bands import read_bands
from dataset.folders import read_samples
from dataset.reader import Reader
from inference.predictor import Predictor, config_for_size
from model.build import network_of
from model.checkpoint import load_weights
from model.deploy import (
    NORMALISATION,
    RESIZING,
    Deployed,
    Run,
    describe,
    example_of,
    from_onnx,
    from_torchscript,
    to_onnx,
    to_safetensors,
    to_torchscript,
)
from model.lora import merge_adapters
from model.trained import load_trained
from util.config.schema import Config
from util.errors import UserError, print_error, reason
from util.io import write_atomically
from util.normalize import mean_and_std, normalise, to_unit

AGREEMENT = 0.999
"""Share of an image's pixels of which the masks must agree at least."""
SHOWN = 4
"""Validation images that are compared where none are named."""
CPU = torch.device("cpu")


def export(options: argparse.Namespace, config: Config) -> None:
    """Write the file if what it computes agrees with predict.py; else exit with code 1."""
    once = config.evaluation.model_copy(update={"flip": False, "scales": (1.0,)})
    plain = config.model_copy(
        update={"precision": "float32", "channels_last": False, "evaluation": once}
    )
    images = list(read_images(options, config))
    network = load_trained(plain, options.checkpoint, options.which, CPU)
    config = merge_adapters(network, config)
    inside = {NORMALISATION, RESIZING} - set(options.outside)
    deployed = Deployed(network, config, inside).eval()
    content = exported(options, config, deployed)
    views = [*views_of(images, options.size)]
    run = function_of(options.format, config, content)
    if not compare(deployed, run, views, plain, options.size is not None):
        hint = "" if options.size else "; for images of one size alone: --size H W"
        print_error(f"not as predict.py: {options.out} was not written{hint}")
        sys.exit(1)
    write_atomically(options.out, lambda file: file.write(content))
    print(f"written: {options.out} ({len(content) / 2**20:.1f} MiB)")


def read_images(options: argparse.Namespace, config: Config) -> Iterator[Tensor]:
    """`[1, bands, H, W]` in [0, 1]: the files that are named, else the first of validation."""
    data = config.data
    if options.images and data.dates > 1:
        raise UserError("--images: the network takes pairs; leave it out for those of validation")
    if options.images:
        arrays = [read_bands(path, data) for path in options.images]
    else:
        listed = read_samples(data.val, data, masks=True).samples[:SHOWN]
        arrays = [Reader(data).image(sample) for sample in listed]
    for array in arrays:
        yield to_unit(torch.from_numpy(array.copy()).permute(2, 0, 1)[None])


def exported(options: argparse.Namespace, config: Config, deployed: Deployed) -> bytes:
    """The bytes of the file; raises `UserError` for a network that torch cannot export."""
    multiple = deployed.patch_size
    sides = options.size or [-(-side // multiple) * multiple for side in (70, 110)]
    if any(side % multiple for side in sides):
        raise UserError(f"--size: found {sides}, expected multiples of {multiple} pixels")
    example, facts = example_of(sides, config.data.channels), describe(config, deployed)
    if options.format == "safetensors":
        return to_safetensors(deployed, facts)
    try:
        if options.format == "onnx":
            return to_onnx(deployed, example, options.size is not None, facts)
        return to_torchscript(deployed, example, facts)
    except UserError:
        raise
    except Exception as error:  # of whichever part of torch
        hint = "" if options.size else " for images of any size; choose one: --size H W"
        problem = f"cannot be exported{hint} ({reason(error)})"
        raise UserError(f"--format {options.format}: {problem}") from None


def function_of(format: str, config: Config, content: bytes) -> Run:
    """What the bytes compute; of weights, with the same around a new network."""
    if format == "onnx":
        return from_onnx(content)
    if format == "torchscript":
        return from_torchscript(content)
    network = network_of(config.model, config.data)
    load_weights(network, safetensors.torch.load(content), "the exported weights")
    return Deployed(network.eval(), config, {NORMALISATION, RESIZING}).eval()


def views_of(images: Sequence[Tensor], size: Sequence[int] | None) -> Iterator[Tensor]:
    """The images, and two parts of the first as a batch of another size; or all at one size."""
    if size:
        yield from (F.interpolate(image, tuple(size), mode="bilinear") for image in images)
        return
    yield from images
    h, w = (max(1, side * 3 // 4) for side in images[0].shape[-2:])
    yield torch.cat([images[0][..., :h, :w], images[0][..., -h:, -w:]])


@dataclass
class Exported:
    """Stands where the network does in a prediction."""

    run: Run
    patch_size: int

    def __call__(self, x: Tensor) -> Tensor:
        return self.run(x)


@torch.no_grad()
def compare(
    deployed: Deployed, run: Run, views: Sequence[Tensor], config: Config, fixed: bool
) -> bool:
    """Whether the masks agree; prints the largest difference of their probabilities."""
    stand_in: Any = Exported(run, deployed.patch_size)
    mean, std = mean_and_std(config, CPU)
    difference, agreement = 0.0, 1.0
    for view in views:
        mode = mode_of(view, config, fixed)
        own = Predictor(deployed.network, config, CPU, mode).predict_normalised(
            normalise(view, mean, std)
        )
        mode = "original" if deployed.square else mode  # it resizes by itself
        try:
            exported = Predictor(stand_in, config, CPU, mode)
            other = exported.predict_normalised(deployed.from_unit(view))
        except Exception as error:  # of whichever library runs it
            size = "x".join(map(str, view.shape))
            print(f"what was exported fails on images {size}: {reason(error)}")
            return False
        same = (own.argmax(1) == other.argmax(1)).float().mean((1, 2)).min().item()
        difference = max(difference, (own - other).abs().max().item())
        agreement = min(agreement, same)
    print(
        f"{len(views)} predictions compared: largest difference of probabilities {difference:.2g}, "
        f"masks agree on {100 * agreement:.3f} % of the pixels or more"
    )
    return agreement >= AGREEMENT and math.isfinite(difference)


def mode_of(view: Tensor, config: Config, fixed: bool) -> str:
    """How `predict.py` would predict it; windows are for single images of any size."""
    height, width = view.shape[-2:]
    mode = config_for_size(config, (width, height)).evaluation.mode
    return "original" if mode == "sliding_window" and (fixed or len(view) > 1) else mode
