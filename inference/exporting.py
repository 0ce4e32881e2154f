"""Export of a network as ONNX, TorchScript or safetensors, and comparison with predict.py."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from dataset.folders import read_samples
from dataset.reader import read_dates
from inference.evaluation import describe_prediction
from inference.predictor import Predictor, mode_for_size
from model.build import network_from_config
from model.checkpoint import load_weights
from model.deploy import (
    NORMALISATION,
    RESIZING,
    Deployed,
    ExportedFunction,
    from_onnx,
    from_torchscript,
    metadata,
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
from util.numbers import ceil_div

AGREEMENT = 0.999
"""Least share of the pixels of an image with equal masks."""
VALIDATION_IMAGES = 4
"""Number of images to compare on without --images."""
CPU = torch.device("cpu")


class ComparedImages(NamedTuple):
    """A batch of images to compare on."""

    image: Tensor
    """`[B, C, H, W]` in [0, 1]."""
    has_data: Tensor
    """`[B, H, W]`, bool: pixels with data; predict.py writes 255 for the others."""


def export(args: argparse.Namespace, config: Config) -> None:
    """Write the file if its masks agree with those of predict.py; else exit with code 1."""
    once = config.evaluation.model_copy(update={"flip": False, "scales": (1.0,)})
    plain = config.model_copy(
        update={"precision": "float32", "channels_last": False, "evaluation": once}
    )
    images = read_images(args, config)
    network = load_trained(plain, args.checkpoint, args.which, CPU)
    config = merge_adapters(network, config)
    inside = {NORMALISATION, RESIZING} - set(args.outside)
    deployed = Deployed(network, config, inside).eval()
    content = exported_content(args, config, deployed)
    batches = [*batches_to_compare(images, args.size)]
    exported = function_of(args.format, config, content)
    if not compare_masks(deployed, exported, batches, plain, args.size is not None):
        hint = "" if args.size else ". Fix: --size H W exports for one fixed size"
        print_error(f"error: the export differs from predict.py: {args.out} was not written{hint}")
        sys.exit(1)
    if config.evaluation != once:
        views = describe_prediction(config.evaluation)
        print(
            f"note     evaluate.py and predict.py predict with: {views}; the export predicts at "
            "scale 1, without flip. Fix: resize or mirror its images yourself"
        )
    write_atomically(args.out, lambda file: file.write(content))
    print(f"written  {args.out} ({len(content) / 2**20:.1f} MiB)")


def read_images(args: argparse.Namespace, config: Config) -> list[ComparedImages]:
    """Read the images of `--images`, else the first of the validation split, without those that
    have no data at all; raises `UserError` if none remains."""
    data = config.data
    if args.images and data.dates > 1:
        raise UserError(
            "--images: the network takes pairs, which --images cannot name. Fix: omit it; "
            "validation pairs are compared"
        )
    if args.images:
        files: list[Sequence[Path]] = [[path] for path in args.images]
    else:
        samples = read_samples(data.val, data, masks=True).samples[:VALIDATION_IMAGES]
        files = [sample.image_files for sample in samples]
    batches = []
    for sample_files in files:
        pixels, nodata_mask = read_dates(sample_files, data)
        image = to_unit(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None])
        has_data = torch.ones(1, *image.shape[-2:], dtype=torch.bool)
        if nodata_mask is not None:
            has_data = torch.from_numpy(~nodata_mask)[None]
        batches.append(ComparedImages(image, has_data))
    with_data = [batch for batch in batches if batch.has_data.any()]
    if not with_data:
        raise UserError(f"{files[0][0]}: no pixel has data. Fix: name other images with --images")
    return with_data


def exported_content(args: argparse.Namespace, config: Config, deployed: Deployed) -> bytes:
    """Return the content of the file; raises `UserError` if torch cannot export the network."""
    multiple = deployed.size_multiple
    sides = args.size or [ceil_div(side, multiple) * multiple for side in (70, 110)]
    if any(side % multiple for side in sides):
        raise UserError(f"--size: found {sides}, expected multiples of {multiple} pixels")
    example = torch.rand(2, config.data.channels, *sides)
    facts = metadata(config, deployed)
    if args.format == "safetensors":
        return to_safetensors(deployed, facts)
    try:
        if args.format == "onnx":
            return to_onnx(deployed, example, args.size is not None, facts)
        return to_torchscript(deployed, example, facts)
    except UserError:
        raise
    except Exception as error:  # any class, depending on the part of torch
        problem = f"--format {args.format}: cannot be exported"
        if args.size:
            raise UserError(f"{problem} ({reason(error)})") from None
        raise UserError(
            f"{problem} for images of any size ({reason(error)}). Fix: choose one with --size H W"
        ) from None


def function_of(format: str, config: Config, content: bytes) -> ExportedFunction:
    """Return an exported file as a function; for safetensors, a new network with the weights."""
    if format == "onnx":
        return from_onnx(content)
    if format == "torchscript":
        return from_torchscript(content)
    network = network_from_config(config.model, config.data)
    load_weights(network, safetensors.torch.load(content), "the exported weights")
    return Deployed(network.eval(), config, {NORMALISATION, RESIZING}).eval()


def batches_to_compare(
    images: Sequence[ComparedImages], size: Sequence[int] | None
) -> Iterator[ComparedImages]:
    """Yield the images, and two parts of the first image as a batch of another size; with `size`,
    only the images, resized."""
    if size:
        for image, has_data in images:
            resized = F.interpolate(image, tuple(size), mode="bilinear")
            yield ComparedImages(resized, F.interpolate(has_data[None].float(), tuple(size))[0] > 0)
        return
    yield from images
    image, has_data = images[0]
    h, w = (max(1, side * 3 // 4) for side in image.shape[-2:])
    yield ComparedImages(
        *(torch.cat([x[..., :h, :w], x[..., -h:, -w:]]) for x in (image, has_data))
    )


@dataclass
class ExportedNetwork:
    """An exported function that replaces the network of a `Predictor`."""

    function: ExportedFunction
    size_multiple: int
    min_side: int = 1

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x)


@torch.no_grad()
def compare_masks(
    deployed: Deployed,
    exported: ExportedFunction,
    batches: Sequence[ComparedImages],
    config: Config,
    fixed: bool,
) -> bool:
    """Return True if the masks agree at the pixels with data; print the largest difference of the
    probabilities. `fixed`: the exported function takes images of one size only."""
    network = ExportedNetwork(exported, deployed.size_multiple, deployed.network.min_side)
    mean, std = mean_and_std(config, CPU)
    difference, agreement = 0.0, 1.0
    for batch, has_data in batches:
        mode = mode_of(batch, config, fixed)
        original = Predictor(deployed.network, config, CPU, mode)
        expected = original.predict_normalised(normalise(batch, mean, std))
        mode = "original" if deployed.square_side else mode  # the export resizes by itself
        try:
            predictor = Predictor(network, config, CPU, mode)
            found = predictor.predict_normalised(deployed.from_unit(batch))
        except Exception as error:  # any class, depending on the library
            size = "x".join(map(str, batch.shape))
            print(f"the exported network fails on images {size}: {reason(error)}")
            return False
        if not found.isfinite().all():
            print("the exported network returns NaN or infinity")
            return False
        same = (expected.argmax(1) == found.argmax(1)) & has_data
        difference = max(difference, (expected - found).abs().max().item())
        shares = same.sum((1, 2)) / has_data.sum((1, 2))  # NaN for a part without data
        agreement = min(agreement, *shares.nan_to_num(1).tolist())
    print(
        f"{len(batches)} predictions compared: largest difference of probabilities "
        f"{difference:.2g}, masks agree on at least {100 * agreement:.3f} % of the pixels"
    )
    return agreement >= AGREEMENT


def mode_of(batch: Tensor, config: Config, fixed: bool) -> str:
    """Return the prediction mode of predict.py, but no sliding windows for a batch, nor for an
    export of one fixed size."""
    height, width = batch.shape[-2:]
    mode = mode_for_size(config, (width, height))
    return "original" if mode == "sliding_window" and (fixed or len(batch) > 1) else mode
