"""Checks that a method keeps the contract of `engine/method.py`, before a mistake costs a run."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Collection, Mapping
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from engine.scripts import CLASSES
from model.checkpoint import shape_of
from model.files import best_checkpoint, network_in
from util.errors import UserError, join_first
from util.log import logger

if TYPE_CHECKING:
    from engine.method import Method

Shapes = Mapping[str, object]
"""Shapes of weights and buffers, by name."""
_TORCH_NAMES = frozenset(vars(nn.Module()))
"""Attributes in which torch keeps the parts of a module."""


def shapes(module: nn.Module) -> Shapes:
    return {key: shape_of(value) for key, value in module.state_dict().items()}


def require_own_name(method: type[Method]) -> None:
    """Raise `UserError` if a class has the name of a method in another script, by which checkpoints
    and tables tell methods apart."""
    module, started = method.__module__, Path(sys.argv[0])
    if module == "__main__" and started.suffix != ".py":  # runs inside another program
        return
    script = started.stem if module == "__main__" else module.rpartition(".")[2]
    for own, name in CLASSES.items():
        if name == method.__name__ and own != script:
            raise UserError(
                f"{script}.py: class {name} has the name of the class in {own}.py, but checkpoints "
                "and tables tell methods apart by it. Fix: rename the class"
            )


def require_registered(method: Method) -> None:
    """Raise `ValueError` for tensors or parts of the method that torch does not know of: they are
    neither trained nor saved nor moved to the device.

    A method with an extra state may keep tensors, which it saves itself.
    """
    saves_tensors = type(method).get_extra_state is not nn.Module.get_extra_state
    kinds = nn.Module if saves_tensors else (nn.Module, Tensor)
    for name, value in vars(method).items():
        if name not in _TORCH_NAMES and _holds(value, kinds):
            raise ValueError(
                f"{type(method).__name__}.{name}: found tensors or modules that would be neither "
                "trained nor saved. Fix: self.register_buffer, nn.ModuleList or nn.ParameterList, "
                "or get_extra_state for tensors that are not trained"
            )


def _holds(value: object, kinds: Any) -> bool:
    """Return True if a value is of these kinds, or a container that holds one."""
    if isinstance(value, Mapping):
        value = [*value.values()]
    if isinstance(value, list | tuple | set | deque):
        return any(_holds(part, kinds) for part in value)
    return isinstance(value, kinds)


def require_loadable(method: Method, expected: Shapes) -> None:
    """Raise `ValueError` for a network of `eval_models` whose checkpoint cannot be loaded into the
    config's network, of the `expected` shapes, and for a `labeler` that is not validated."""
    kind, networks = type(method).__name__, method.eval_models()
    for name, scored in networks.items():
        found = network_in(best_checkpoint(Path(), name))
        if found != name or getattr(method, name, None) is not scored:
            raise ValueError(
                f"{kind}.eval_models: found {name}, expected model or model_..., "
                "the name of the attribute that holds the network. Fix: rename both"
            )
        if changed := _changed(expected, shapes(scored)):
            raise ValueError(
                f"{kind}.eval_models: {name} has other weights than the network of the config, "
                f"which its checkpoint is loaded into: {join_first(changed, 3)}. Fix: build it by "
                "model.build.another_network, or leave it out"
            )
    if not any(scored is method.labeler for scored in networks.values()):
        raise ValueError(
            f"{kind}.labeler: found a network that is not validated, expected one of eval_models: "
            f"{', '.join(networks)}. Fix: add it to eval_models"
        )


def checked_output(
    method: Method, output: Any, names: Collection[str] | None
) -> tuple[Tensor, dict[str, Tensor | float]]:
    """Return the output of `step`, its scalars in the order of `names`, those of the first step.

    Raises `ValueError` unless it is a loss of one number, with a gradient, and scalars of one
    number each.
    """
    kind = f"{type(method).__name__}.step"
    if not isinstance(output, tuple) or len(output) != 2 or not isinstance(output[1], dict):
        raise ValueError(
            f"{kind}: expected a tuple of the loss and a dict of scalars, found {_describe(output)}"
        )
    loss, scalars = output
    if not isinstance(loss, Tensor) or loss.ndim:
        raise ValueError(
            f"{kind}: expected a loss of one number, a tensor of shape (), found {_describe(loss)}"
        )
    if torch.is_grad_enabled() and not loss.requires_grad:
        raise ValueError(f"{kind}: found a loss without gradient (detached, or of no network)")
    for name, value in scalars.items():
        if name in ("loss", "grad_norm"):
            raise ValueError(f"{kind}: scalar '{name}': expected another name; it is logged anyway")
        if not isinstance(value, Real) and not (isinstance(value, Tensor) and value.ndim == 0):
            raise ValueError(
                f"{kind}: scalar '{name}': expected one number, found {_describe(value)}"
            )
    if names is not None and {*scalars} != {*names}:
        raise ValueError(
            f"{kind}: expected the scalars of the first step, {', '.join(names) or 'none'}; found "
            f"{', '.join(scalars) or 'none'}. Fix: return 0 for a loss that is not used yet"
        )
    return loss, {name: scalars[name] for name in (scalars if names is None else names)}


def _describe(value: object) -> str:
    """Return the shape of a tensor or the class of another value."""
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def require_same_parts(method: Method, before: Shapes) -> None:
    """Raise `ValueError` if weights or buffers were added, removed or resized since `before`: a
    resumed run starts without the change, so it could not load its checkpoint."""
    if changed := _changed(before, shapes(method)):
        raise ValueError(
            f"{type(method).__name__}: added, removed or resized during training: "
            f"{join_first(changed, 3)}; a resumed run could not load its checkpoint. Fix: create "
            "all parts in __init__, with their final shape"
        )


def warn_of_missing_gradients(method: Method) -> None:
    """Warn of trained parameters without a gradient after a backward pass."""
    trained = {name: p for name, p in method.named_parameters() if p.requires_grad}
    if unused := [name for name, parameter in trained.items() if parameter.grad is None]:
        logger.warning(
            "%s.step: no gradient for %s: the loss does not depend on them, so they do not learn, "
            "and several processes would stop. Fix: remove them, set requires_grad_(False), or add "
            "them to the loss with weight 0 until they are used",
            type(method).__name__, join_first(unused, 3),
        )  # fmt: skip


def _changed(before: Shapes, after: Shapes) -> list[str]:
    return [key for key in {**before, **after} if before.get(key) != after.get(key)]
