"""Checkpoints: written whole or not at all, read without running code, in any published form."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from util.errors import UserError

# Published checkpoints hold their best score as a numpy float; nothing wider is let in.  The
# scalar's constructor is known under two names, before and after numpy 2.
_NUMPY_SCALAR: list[Any] = [
    (np.float64(0).__reduce__()[0], f"{core}.multiarray.scalar")
    for core in ("numpy.core", "numpy._core")
] + [np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.float32))]


def save_atomically(state: Any, path: Path) -> None:
    """Write `state` beside `path`, then rename: `path` is always the old or the new file, whole.

    Raises `UserError` when the folder cannot be written or the disk is full.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise UserError(f"{path}: cannot be written ({error}); the previous one is kept") from None
    finally:
        partial.unlink(missing_ok=True)


def link_atomically(source: Path, path: Path) -> None:
    """Make `path` another name of `source`'s present content, without writing it twice."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
        partial.replace(path)
    except OSError:  # a file system without hard links
        save_atomically(load(source), path)


def load(path: Path) -> Any:
    """What `path` holds, on the CPU, loaded with `weights_only`.

    Raises `UserError` when it is missing, damaged, or holds more than tensors and numbers.
    """
    try:
        with torch.serialization.safe_globals(_NUMPY_SCALAR):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: damaged, or holds more than tensors, numbers and names; not loaded"
        ) from None
    except Exception as error:  # the reader raises whatever damaged bytes lead it to
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise UserError(f"{path}: not a readable checkpoint ({reason})") from None


def network_state(state: Any, path: Path, which: str = "model") -> dict[str, Tensor]:
    """The network's state dict inside a checkpoint.

    Accepts a bare state dict, `{'model': ..., 'model_ema': ...}` and this project's own
    `{'method': ...}` (whose names start with `which`), with or without 'module.' in front.
    """
    if isinstance(state, Mapping) and isinstance(state.get("method"), Mapping):
        state = {
            k.removeprefix(which + "."): v
            for k, v in state["method"].items()
            if k.startswith(which + ".")
        }
    elif isinstance(state, Mapping) and isinstance(state.get(which), Mapping):
        state = state[which]
    if not isinstance(state, Mapping) or not state:
        raise UserError(f"{path}: holds no weights under '{which}'")
    if not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UserError(f"{path}: expected names and tensors under '{which}', found other things")
    return {k.removeprefix("module."): v for k, v in state.items()}


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def load_weights(module: nn.Module, state: Mapping[str, Tensor], path: Path | str) -> None:
    """Load `state` into `module`, entirely.

    Raises `UserError` naming what is missing, unexpected or of another shape.
    """
    own = module.state_dict()
    shapes = [
        f"{k} {list(state[k].shape)} instead of {list(v.shape)}"
        for k, v in own.items()
        if k in state and state[k].shape != v.shape
    ]
    faults = {
        "missing": [k for k in own if k not in state],
        "unexpected": [k for k in state if k not in own],
        "of another shape": shapes,
    }
    found = "; ".join(f"{len(v)} {fault}: {_some(v)}" for fault, v in faults.items() if v)
    if found:
        raise UserError(
            f"{path}: made with another network, method or number of classes ({found}); "
            "use the config it was trained with"
        )
    module.load_state_dict(state)


def read_pretrained(path: Path) -> dict[str, Tensor]:
    """The weights in a file of ImageNet weights; raises `UserError` when it is not there."""
    if not path.exists():
        raise UserError(
            f"{path}: pretrained weights not found; put the file there, or set "
            "model.pretrained to hub, none or another file"
        )
    return network_state(load(path), path)


def load_backbone_state(backbone: nn.Module, state: Mapping[str, Tensor], source: object) -> str:
    """Load ImageNet weights into a backbone; returns a report of what was loaded.

    Entries beyond the backbone's (a classifier) are reported, not an error; lacking ones are.
    timm's feature extractors write some dots as underscores (stages_0 for stages.0).
    """
    given = {name.replace(".", "_"): name for name in state}
    own = backbone.state_dict()
    names = {k: given.get(k.replace(".", "_")) for k in own}
    loaded = {k: state[name] for k, name in names.items() if name is not None}
    lacking = [k for k in own if k not in loaded and not k.endswith("num_batches_tracked")]
    lacking += [k for k, v in loaded.items() if v.shape != own[k].shape]
    if lacking:
        raise UserError(
            f"{source}: not the weights of this backbone; {len(lacking)} of {len(own)} missing or "
            f"of another shape: {_some(lacking)}"
        )
    backbone.load_state_dict(loaded, strict=False)
    unused = [name for name in state if name not in names.values()]
    return f"{source}: {len(loaded)} entries loaded" + (
        f", {len(unused)} unused: {_some(unused)}" if unused else ""
    )
