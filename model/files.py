"""Paths of weights: checkpoints of runs, published folders, pretrained backbones."""

import os
import re
from pathlib import Path

from model.hub import HUB_PREFIX, hub_folder
from util.config.schema import Model
from util.errors import UserError
from util.paths import find_path, nearest_hint

SAFETENSORS_SUFFIX = ".safetensors"
PUBLISHED_WEIGHTS = f"model{SAFETENSORS_SUFFIX}"
"""Weights in a folder that `tools.publish` wrote."""
PRETRAINED_FOLDER = Path("pretrained")


def best_checkpoint(run: Path, name: str) -> Path:
    """Return a network's best checkpoint: best.pth, or best_NAME.pth."""
    return run / ("best.pth" if name == "model" else f"best_{name}.pth")


def network_in(path: Path) -> str:
    """Return the network that best_model_NAME.pth was chosen for; of other files, the trained
    network, `model`."""
    match = re.fullmatch(r"best_(model_.+)\.pth", path.name)
    return match[1] if match else "model"


def find_checkpoint(given: Path, which: str | None, option: str = "--checkpoint") -> Path:
    """Return the file that an option names: a file; in a run directory, the best checkpoint of
    network `which` (default: model); in a folder of `tools.publish` or on the hub
    (`hf:OWNER/NAME`), the weights.

    Raises `UserError` for a path that does not exist, a folder without a checkpoint, or a hub that
    cannot be reached.
    """
    folder = given
    if str(given).startswith(HUB_PREFIX):
        folder = hub_folder(str(given), option)
    if not os.path.exists(folder):  # False too for an impossible path
        raise UserError(f"{option} {given}: no such checkpoint or run{nearest_hint(given)}")
    if not folder.is_dir():
        return folder
    candidates = [best_checkpoint(folder, which or "model"), folder / PUBLISHED_WEIGHTS]
    existing = [path for path in candidates if path.exists()]
    if not existing:
        others = sorted(path.name for path in folder.glob("*.pth"))
        contents = f"; it has {', '.join(others)}" if others else ""
        raise UserError(
            f"{option} {given}: found neither {candidates[0].name} of a run nor "
            f"{PUBLISHED_WEIGHTS} of a published folder{contents}. Fix: name the checkpoint file"
        )
    return existing[0]


def require_resumable(resume: str) -> Path:
    """Return the checkpoint that `--resume` names; raises `UserError` where there is none."""
    if not os.path.isfile(resume):  # False too for an impossible path
        hint = nearest_hint(Path(resume))
        raise UserError(
            f"--resume {resume}: no such checkpoint; expected auto, never or a file{hint}"
        )
    return Path(resume)


def pretrained_file(model_config: Model) -> Path | None:
    """Return the file of pretrained weights that the config names, if any; it may be missing."""
    if model_config.pretrained in ("none", "hub"):
        return None
    if model_config.pretrained != "file":
        return find_path(Path(model_config.pretrained))
    has_none = model_config.network == "unet"
    return None if has_none else find_path(PRETRAINED_FOLDER / f"{model_config.backbone}.pth")


def require_pretrained(path: Path) -> None:
    """Raise `UserError` for missing pretrained weights."""
    if not os.path.exists(path):  # False too for an impossible path
        raise UserError(
            f"{path}: pretrained weights not found{nearest_hint(path) or '.'} Fix: put the file "
            "there (python -m tools.weights list names published ones, fetch gets them), or "
            "--set model.pretrained=hub to download timm's, or --set model.pretrained=none to "
            "train from random weights (lower scores)"
        )
