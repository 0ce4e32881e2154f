"""Command-line options of every command that takes a checkpoint."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from dataset.folders import require_sources
from model.files import SUFFIX, find_checkpoint
from util.cli import add_device, add_settings
from util.config.data import ImageSources
from util.config.loading import load_config, resolve
from util.config.schema import Config
from util.errors import UserError
from util.launched import launched_rank
from util.parser import Parser
from util.paths import nearest

ACQUISITIONS = ("entropy", "margin", "least_confidence")
"""Measures of uncertainty, as `inference.uncertainty` defines them."""


def checkpoint_parser(
    description: str | None, examples: Sequence[str], device: bool = True
) -> Parser:
    """Return a parser with the options of all commands over a checkpoint."""
    parser = Parser(description, examples)
    parser.add_argument(
        "--config",
        type=Path,
        help="config of the training (default: config.yaml beside the checkpoint)",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="PATH|hf:OWNER/NAME",
        help="checkpoint or .safetensors file, run directory (its best checkpoint), folder of "
        "tools.publish, or such a folder on the Hugging Face hub",
    )
    parser.add_argument(
        "--which", default="model", help="network in the checkpoint, such as model_ema"
    )
    add_settings(parser)
    if device:
        add_device(parser)
    return parser


def add_tta(parser: argparse.ArgumentParser) -> None:
    """Add --tta, which `config_of` applies to the config."""
    parser.add_argument(
        "--tta",
        nargs="+",
        default=[],
        metavar="flip|SCALE",
        help="test-time augmentation: probabilities averaged over mirror images and scales, such "
        "as --tta flip 0.75 1 1.25 (evaluation.flip, evaluation.scales)",
    )


def _augmentation(words: list[str]) -> list[str]:
    """Return the settings of a config for the words of `--tta`."""
    scales = [word for word in words if word != "flip"]
    for word in scales:
        if not re.fullmatch(r"\d*\.?\d+", word):
            raise UserError(f"--tta: found '{word}', expected flip or scales, such as 0.75 1 1.25")
    flip = ["evaluation.flip=true"] * ("flip" in words)
    return flip + [f"evaluation.scales=[{', '.join(scales)}]"] * bool(scales)


def checkpoint_of(options: argparse.Namespace) -> Path:
    """Return the file of `--checkpoint`, and print it where a folder was given.

    Raises `UserError` as `find_checkpoint` does.
    """
    found = find_checkpoint(options.checkpoint, options.which)
    if found != options.checkpoint and launched_rank() == 0:
        print(f"checkpoint: {found}")
    return found


def split_of(config: Config, split: str) -> ImageSources:
    """Return the images of a split, val or test; raises `UserError` where the config has none."""
    source = config.data.val if split == "val" else config.data.test
    if source is None:
        raise UserError("--split test: the config has no data.test")
    return source


def require_split(config: Config, split: str) -> None:
    """Raise `UserError` for a split file or folder that does not exist."""
    require_sources(split_of(config, split), config.data)


def config_of(options: argparse.Namespace) -> Config:
    """Return the config of a command that takes a checkpoint, with `--set` and `--tta` applied."""
    settings = [*options.set, *_augmentation(getattr(options, "tta", []))]
    return checkpoint_config(options.checkpoint, options.config, settings)


def checkpoint_config(
    checkpoint: Path, config: Path | None = None, settings: Sequence[str] = ()
) -> Config:
    """Return the config of a checkpoint: the file `config`, else `config.yaml` beside the
    checkpoint, else the one inside a .safetensors file.

    Raises `UserError` where there is none.
    """
    path = config or checkpoint.parent / "config.yaml"
    if config is None and not path.exists():
        if not checkpoint.exists():
            raise UserError(f"{checkpoint}: no such checkpoint{nearest(checkpoint)}")
        if checkpoint.suffix == SUFFIX:
            from model.checkpoint import load  # which brings PyTorch

            if "config" in (whole := load(checkpoint)):
                return resolve(whole["config"], str(checkpoint), settings)
        raise UserError(
            f"{path}: no config beside the checkpoint; name the one it was trained with: --config"
        )
    return load_config(path, settings)
