"""Checks that a method keeps the contract of `engine/method.py`, before a mistake costs a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from model.checkpoint import shape_of
from model.files import best_checkpoint, network_in
from util.errors import UserError, join_first
from util.log import logger

if TYPE_CHECKING:
    from engine.method import Method

Shapes = Mapping[str, object]
"""Shapes of weights and buffers, by name."""


def shapes(module: nn.Module) -> Shapes:
    return {key: shape_of(value) for key, value in module.state_dict().items()}


def require_own_name(method: type[Method]) -> None:
    """Raise `UserError` if another script in the repository's root has a class of this name, by
    which checkpoints and tables tell methods apart."""
    own = Path(method.step.__code__.co_filename).resolve()  # __main__ may be a profiler
    for script in Path(__file__).resolve().parents[1].glob("*.py"):
        text = script.read_text(encoding="utf-8", errors="replace")
        if script != own and f"\nclass {method.__name__}(" in text:
            raise UserError(
                f"{own.name}: class {method.__name__} has the name of the class in {script.name}, "
                "but checkpoints and tables tell methods apart by it. Fix: rename the class"
            )


def require_registered(method: Method) -> None:
    """Raise `ValueError` for tensors or parts of the method that torch does not know of: they are
    neither trained nor saved nor moved to the device."""
    for name, value in vars(method).items():
        values = value.values() if isinstance(value, dict) else value
        parts = values if isinstance(value, list | tuple | dict) else [value]
        if name[0] != "_" and any(isinstance(part, Tensor | nn.Module) for part in parts):
            raise ValueError(
                f"{type(method).__name__}.{name}: found tensors or modules that would be neither "
                "trained nor saved. Fix: self.register_buffer, nn.ModuleList or nn.ParameterList"
            )


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


def check_output(
    method: Method, loss: object, scalars: Mapping[str, object], names: Sequence[str]
) -> None:
    """Raise `ValueError` unless `step` returned a loss and scalars of one number each, the scalars
    by the `names` of the first step."""
    kind = f"{type(method).__name__}.step"
    if not isinstance(loss, Tensor) or loss.ndim:
        found = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(
            f"{kind}: expected a loss of one number, a tensor of shape (), found {found}"
        )
    for name, value in scalars.items():
        if name in ("loss", "grad_norm") or (isinstance(value, Tensor) and value.ndim):
            raise ValueError(
                f"{kind}: scalar '{name}': expected one number, and another name than loss and "
                "grad_norm, which are logged anyway"
            )
    if [*scalars] != names:
        raise ValueError(
            f"{kind}: expected the scalars of the first step, {', '.join(names)}; found "
            f"{', '.join(scalars)}. Fix: return 0 for a loss that is not used yet"
        )


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
