"""Options of the commands that take a checkpoint, and the config of a checkpoint."""

import argparse
import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from model.files import PUBLISHED_WEIGHTS, SAFETENSORS_SUFFIX, find_checkpoint, network_in
from util.cli import add_device, add_settings
from util.config.data import ImageSources
from util.config.differences import SCORE_KEYS, differences
from util.config.loading import load_config, resolve
from util.config.schema import Config
from util.errors import UserError, print_error
from util.launcher import launched_rank
from util.parser import Parser

ACQUISITIONS = ("entropy", "margin", "least_confidence")
"""Measures of uncertainty, defined in `inference.predictor`."""


def checkpoint_parser(description: str | None, *examples: str, predicts: bool = True) -> Parser:
    """Return a parser with the options of all commands that take a checkpoint; `predicts`: with
    --device and --tta."""
    parser = Parser(description, *examples)
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
        "--which",
        help="network in the checkpoint: model (student) or model_ema (EMA teacher) (default: "
        "model_ema for best_model_ema.pth, else model)",
    )
    add_settings(parser)
    if predicts:
        add_device(parser)
        parser.add_argument(
            "--tta",
            nargs="+",
            default=[],
            metavar="flip|SCALE",
            help="test-time augmentation: probabilities averaged over mirror images and scales, "
            "such as --tta flip 0.75 1 1.25 (evaluation.flip, evaluation.scales)",
        )
    return parser


NOT_COMPARED = ("data.classes", "evaluation.select")
"""Keys that change scores in training only: loading a network compares the classes, and `select`
chose its checkpoint."""


def checkpoint_and_config(args: argparse.Namespace) -> tuple[Path, Config]:
    """Return the file of `--checkpoint`, and its config with `--set` and `--tta` applied; print the
    file where a folder was given, and set the default of `--which`.

    Raises `UserError` as `find_checkpoint` and `checkpoint_config` do.
    """
    path = find_checkpoint(args.checkpoint, args.which)
    args.which = args.which or network_in(path)
    if path != args.checkpoint and launched_rank() == 0:
        print(f"checkpoint: {path}")
    words = getattr(args, "tta", [])
    scales = [word for word in words if word != "flip"]
    for word in scales:
        if not re.fullmatch(r"\d*\.?\d+", word):
            raise UserError(f"--tta: found '{word}', expected flip or scales, such as 0.75 1 1.25")
    settings = [*args.set]
    if "flip" in words:
        settings.append("evaluation.flip=true")
    if scales:
        settings.append(f"evaluation.scales=[{', '.join(scales)}]")
    config = checkpoint_config(path, args.config, settings)
    if args.config is not None and launched_rank() == 0:
        _warn_of_other_scores(args.config, config, path.parent / "config.yaml", settings)
    return path, config


def _warn_of_other_scores(
    given: Path, config: Config, of_run: Path, settings: Sequence[str]
) -> None:
    """Warn of keys of the `given` config that change scores; `--set` makes both configs equal."""
    with suppress(UserError):  # no config beside the checkpoint, or one of another version
        own = load_config(of_run, settings).model_dump(mode="json")
        changed = differences(own, config.model_dump(mode="json"))
        keys = [
            text for key, text in changed.items()
            if key.startswith(SCORE_KEYS) and key not in NOT_COMPARED
        ]  # fmt: skip
        if keys:
            print_error(
                f"warning: --config {given}: differs from {of_run} in {'; '.join(keys)}. "
                "Fix: leave out --config to use the run's"
            )


def same_network(args: argparse.Namespace) -> str:
    """Return the options that name this network in the next command."""
    words = ["--checkpoint", args.checkpoint]
    if args.which != network_in(args.checkpoint):
        words += ["--which", args.which]
    if args.config is not None:
        words += ["--config", args.config]
    return shlex.join(map(str, words))


def predict_command(network: str, dates: int) -> str:
    """Return the command that predicts images with a network; `dates`: images of a sample."""
    second = " --second FOLDER" if dates == 2 else ""
    return f"python predict.py {network} --images FOLDER{second} --save-path OUT"


def split_of(config: Config, split: str) -> ImageSources:
    """Return the images of a split, val or test; raises `UserError` where the config has none."""
    source = config.data.val if split == "val" else config.data.test
    if source is None:
        raise UserError("--split test: the config has no data.test. Fix: --set data.test=FILE")
    return source


def is_set(key: str, settings: Sequence[str]) -> bool:
    """Return True if `--set` names a key, or a part of its value."""
    names = (setting.partition("=")[0].strip() for setting in settings)
    return any(f"{name}.".startswith(f"{key}.") for name in names)


def checkpoint_config(
    checkpoint: Path, config: Path | None = None, settings: Sequence[str] = ()
) -> Config:
    """Return the config of a checkpoint: the file `config`, else the one inside an exported
    .safetensors file, else `config.yaml` beside the checkpoint.

    Raises `UserError` if there is none.
    """
    path = config or checkpoint.parent / "config.yaml"
    has_card = path.exists() and path.with_name("README.md").exists()
    # Users edit the paths of the data in it.
    is_published = checkpoint.name == PUBLISHED_WEIGHTS and has_card
    if config is None and checkpoint.suffix == SAFETENSORS_SUFFIX and not is_published:
        from model.checkpoint import load  # which brings PyTorch

        if "config" in (content := load(checkpoint)):
            return resolve(content["config"], str(checkpoint), settings)
    if not path.exists() and config is None:
        raise UserError(
            f"{path}: no config beside the checkpoint. Fix: name the config of the training with "
            "--config (in Python: config=...)"
        )
    return load_config(path, settings)
