"""Checkpoint files: written atomically, read without running code, in any published format."""

import copy
import json
import math
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from model.files import SAFETENSORS_SUFFIX
from util.errors import UserError, join_first, reason
from util.io import replacing, write_atomically

COMPILED_PREFIX = "_orig_mod."
"""Part of parameter names of a module that torch.compile wrapped."""
MAX_VALUES = 10**7
"""Most values in a checkpoint: a small file of nested lists can unfold to any number, and the
history of a thousand epochs with a hundred classes has fewer than a million."""

# Published checkpoints hold their best score as a numpy float; nothing else of numpy is allowed.
# The scalar's constructor has two names, before and after numpy 2.
_NUMPY_SCALAR: list[Any] = [
    (np.float64(0).__reduce__()[0], f"{core}.multiarray.scalar")
    for core in ("numpy.core", "numpy._core")
] + [np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.float32))]


def save_atomically(state: Any, path: Path, previous: Path | None = None) -> None:
    """Write a checkpoint as `write_atomically` does."""
    write_atomically(path, lambda file: torch.save(state, file), previous)


def cpu_copy(state: Any) -> Any:
    """Copy nested dicts and lists of tensors and immutable values to the CPU."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        twin = copy.copy(state)  # with the attributes of an ordered dict of weights
        twin.update({k: cpu_copy(v) for k, v in state.items()})
        return twin
    if isinstance(state, list | tuple):
        return type(state)(cpu_copy(v) for v in state)
    return state


def link_atomically(source: Path, path: Path) -> None:
    """Make `path` a hard link to the present content of `source`."""
    try:
        with replacing(path) as partial:
            os.link(source, partial)
    except OSError:  # a file system without hard links: a copy that reaches the disk
        write_atomically(path, lambda file: file.write(source.read_bytes()))


def _load_safetensors(path: Path) -> dict[str, Any]:
    """Return the weights as `model`, and the config if there is one."""
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    config = {"config": json.loads(metadata["config"])} if "config" in metadata else {}
    if not isinstance(config.get("config", {}), dict):
        raise ValueError("its config is no mapping")
    return {"model": safetensors.torch.load_file(path), **config}


def nonfinite_tensors(state: Any) -> list[str]:
    """Return the names of tensors in nested dicts and lists that hold NaN or infinity.

    Waits for the device once if all are finite.
    """
    named = _tensors(state, "", set())
    tensors = {name: _stored(x) for name, x in named if x.is_floating_point()}
    values = [x for x in tensors.values() if x.numel()]  # the maximum of nothing is an error
    if nn.utils.get_total_norm(values, math.inf).isfinite():
        return []
    return [name for name, x in tensors.items() if not x.isfinite().all()]


def _stored(x: Tensor) -> Tensor:
    """Return a tensor, or its storage if the tensor repeats it: a file of a few bytes can hold a
    tensor that would take hours to check."""
    if x.numel() * x.element_size() <= x.untyped_storage().nbytes():
        return x
    return x.new_empty(0).set_(x.untyped_storage())


def _tensors(state: Any, name: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in nested dicts and lists, with dotted names; each container once."""
    if isinstance(state, Tensor):
        yield name, state.detach()
    elif isinstance(state, Mapping | list | tuple) and id(state) not in seen:
        seen.add(id(state))
        parts = state.items() if isinstance(state, Mapping) else enumerate(state)
        for key, value in parts:
            yield from _tensors(value, f"{name}.{key}" if name else str(key), seen)


def _count_values(state: Any, counts: dict[int, int | None]) -> int:
    """Count the values in nested dicts and lists, repeated ones each time, as a copy would hold
    them.

    Raises `ValueError` for a container that holds itself, and a tensor without values.
    """
    if isinstance(state, Tensor) and state.is_meta:
        raise ValueError("a tensor in it has no values")
    if not isinstance(state, Mapping | list | tuple):
        return 1
    if id(state) not in counts:
        counts[id(state)] = None
        values = state.values() if isinstance(state, Mapping) else state
        counts[id(state)] = 1 + sum(_count_values(value, counts) for value in values)
    count = counts[id(state)]
    if count is None:
        raise ValueError("a list or mapping in it holds itself")
    return count


def load(path: Path) -> Any:
    """Load a checkpoint to the CPU with `weights_only`; a .safetensors file's weights are `model`.

    Raises `UserError` when it is missing, damaged, holds more than tensors and plain values, or
    tensors with NaN or infinity.
    """
    state = _load(path)
    try:
        if _count_values(state, {}) > MAX_VALUES:
            raise ValueError(f"it would unfold to more than {MAX_VALUES} values")
        nonfinite = nonfinite_tensors(state)
    except Exception as error:  # torch raises various errors for malformed tensors
        raise UserError(f"{path}: not a readable checkpoint ({reason(error)})") from None
    if nonfinite:
        raise UserError(
            f"{path}: expected finite weights, found NaN or infinity in "
            f"{join_first(nonfinite, 3)}. Fix: use an earlier checkpoint of the run, or train again"
        )
    return state


def _load(path: Path) -> Any:
    try:
        if path.suffix == SAFETENSORS_SUFFIX:
            return _load_safetensors(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:  # torch does not check the checksums
                if (member := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(f"wrong checksum of {member}")
        with torch.serialization.safe_globals(_NUMPY_SCALAR), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about its own reader
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: damaged, or holds more than tensors, numbers and names; not loaded"
        ) from None
    except Exception as error:  # readers raise any exception for damaged bytes
        raise UserError(f"{path}: not a readable checkpoint ({reason(error)})") from None


def network_state(state: Any, path: Path, which: str = "model") -> dict[str, Tensor]:
    """Return the network's state dict inside a checkpoint.

    Accepts a bare state dict, `{'model': ..., 'model_ema': ...}` and this project's
    `{'method': ...}` (names start with `which`), with or without the prefixes of
    DistributedDataParallel (`module.`) and torch.compile (`_orig_mod.`).
    """
    hint = _networks_hint(state)
    if isinstance(state, Mapping) and isinstance(state.get("method"), Mapping):
        whole = {str(k).replace(COMPILED_PREFIX, ""): v for k, v in state["method"].items()}
        state = {
            k.removeprefix(which + "."): v for k, v in whole.items() if k.startswith(which + ".")
        }
    elif isinstance(state, Mapping) and isinstance(state.get(which), Mapping):
        state = state[which]
    if not isinstance(state, Mapping) or not state:
        raise UserError(f"{path}: holds no weights under '{which}'{hint}")
    if not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UserError(
            f"{path}: expected names and tensors under '{which}', found other values{hint}"
        )
    return {k.replace(COMPILED_PREFIX, "").removeprefix("module."): v for k, v in state.items()}


def _networks_hint(state: Any) -> str:
    """Return the names under which a checkpoint holds weights, as the end of an error."""
    whole = state if isinstance(state, Mapping) else {}
    if isinstance(whole.get("method"), Mapping):
        names = sorted({k.partition(".")[0] for k in map(str, whole["method"]) if "." in k})
    else:
        parts = {str(k): [*v.values()] for k, v in whole.items() if isinstance(v, Mapping)}
        names = [name for name, v in parts.items() if v and all(isinstance(x, Tensor) for x in v)]
    return f". Fix: use those under {' or '.join(names)}" if names else ""


def load_weights(module: nn.Module, state: Mapping[str, Any], path: object) -> None:
    """Load all of `state` into `module`.

    Raises `UserError` with the names of entries that are missing, unexpected or of another shape.
    """
    own = module.state_dict()
    shapes = [
        f"{k} {shape_of(state[k])} instead of {shape_of(v)}"
        for k, v in own.items()
        if isinstance(v, Tensor) and k in state and shape_of(state[k]) != shape_of(v)
    ]
    faults = {
        "missing": [k for k in own if k not in state],
        "unexpected": [str(k) for k in state if k not in own],
        "of another shape": shapes,
    }
    text = "; ".join(f"{len(v)} {fault}: {join_first(v, 3)}" for fault, v in faults.items() if v)
    if text:
        raise UserError(
            f"{path}: made with another network, method or number of classes ({text}). "
            "Fix: use the config it was trained with"
        )
    try:
        module.load_state_dict(state)
    except Exception as error:  # torch or the method rejects a malformed state
        kind = type(module).__name__
        raise UserError(f"{path}: cannot be loaded into {kind} ({reason(error)})") from None


def shape_of(value: Any) -> object:
    """Return the shape of a tensor of real numbers, or the type of any other value."""
    if isinstance(value, Tensor) and not value.is_complex():
        return list(value.shape)
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
