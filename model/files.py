"""Files of weights: where the checkpoint of a run is, and a backbone's pretrained weights."""

import os
from pathlib import Path

from util.config.schema import Model
from util.errors import UserError
from util.paths import find, nearest

SUFFIX = ".safetensors"
PUBLISHED = f"model{SUFFIX}"
"""The weights in a folder that `tools.publish` wrote."""
HUB = "hf:"
"""What names of folders on the hub begin with."""
PRETRAINED = Path("pretrained")


def best_checkpoint(run: Path, name: str) -> Path:
    """The best one of a network: best.pth, or best_model_ema.pth and the like."""
    return run / ("best.pth" if name == "model" else f"best_{name}.pth")


def find_checkpoint(given: Path, which: str = "model", option: str = "--checkpoint") -> Path:
    """The file that `--checkpoint` names: itself; of a run's folder the best checkpoint of this
    network; of a folder that `tools.publish` wrote, or that lies on the hub (`hf:OWNER/NAME`), the
    weights.

    Raises `UserError` for a path that does not exist, a folder without a checkpoint, or a hub that
    cannot be reached.
    """
    folder = given
    if str(given).startswith(HUB):
        from model.hub import hub_folder  # slow to import

        folder = hub_folder(str(given))
    if not os.path.exists(folder):  # False too for what can be no path
        raise UserError(f"{option} {given}: no such checkpoint or run{nearest(given)}")
    if not folder.is_dir():
        return folder
    candidates = [best_checkpoint(folder, which), folder / PUBLISHED]
    found = [path for path in candidates if path.exists()]
    if not found:
        others = sorted(path.name for path in folder.glob("*.pth"))
        there = f"; it has {', '.join(others)}" if others else ""
        raise UserError(
            f"{option} {given}: found neither {candidates[0].name} of a run in it nor "
            f"{PUBLISHED} of a published folder{there}; name the file to take"
        )
    return found[0]


def require_resumable(resume: str) -> Path:
    """The checkpoint that `--resume` names; raises `UserError` where there is none."""
    if not os.path.isfile(resume):  # False too for what can be no path
        hint = nearest(Path(resume))
        raise UserError(
            f"--resume {resume}: no such checkpoint; expected auto, never or a file{hint}"
        )
    return Path(resume)


def pretrained_file(options: Model) -> Path | None:
    """The file of a backbone's pretrained weights, if the config asks for a file; it may be
    missing."""
    if options.pretrained in ("none", "hub") or (
        options.pretrained == "file" and options.network == "unet"  # which has none
    ):
        return None
    named = Path(options.pretrained)
    return find(PRETRAINED / f"{options.backbone}.pth" if options.pretrained == "file" else named)


def require_pretrained(path: Path) -> None:
    """Raise `UserError` for pretrained weights that are not there."""
    if not os.path.exists(path):  # False too for what can be no path
        raise UserError(
            f"{path}: pretrained weights not found{nearest(path)}. Fix: put the file there "
            "(python -m tools.weights list names published ones, fetch gets them), or "
            "--set model.pretrained=hub to download timm's, or --set model.pretrained=none to "
            "train from random weights (lower scores)"
        )
