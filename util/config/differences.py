"""Differences between configs: which keys a resumed run, or another machine, may change."""

from collections.abc import Collection
from typing import Any

from pydantic import ValidationError

from util.config.schema import Config

MOVABLE = {
    "data.palette",
    "data.test",
    "data.workers",
    "data.cache_mb",
    "data.check_samples",
    "data.max_megapixels",
    "evaluation.spacing",  # of evaluate.py alone
    "evaluation.window_batch",
    "optimizer.lr_batch",  # optimizer.lr of a run is scaled already
    "optimizer.scale_lr",
    "channels_last",
    "compile",
    "save_every",
    "save_minutes",
    "nonfinite_limit",
    "log",
}
"""Keys that may change while a run is interrupted, as they change no result; so may each `root`."""
OF_A_MACHINE = {"data.workers", "data.cache_mb", "evaluation.window_batch"}
"""Keys that may differ between the machines of a run; so may each `root`."""


def with_defaults(tree: dict[str, Any]) -> dict[str, Any]:
    """A config as it was saved, with the defaults of keys that came later."""
    try:
        return Config.model_validate(tree).model_dump(mode="json")
    except ValidationError:  # of keys that are no more: named where configs are compared
        return tree


SCORED_BY = (
    "crop_size",
    "data.classes",
    "data.label_map",
    "data.reduce_zero_label",
    "data.val images",
    "evaluation.flip",
    "evaluation.mode",
    "evaluation.scales",
    "evaluation.select",
    "evaluation.volume_pattern",
    "evaluation.window_border",
)
"""Keys whose change makes validation scores before and after it incomparable."""


def differences(
    old: dict[str, Any], new: dict[str, Any], prefix: str = "", free: Collection[str] = MOVABLE
) -> dict[str, str]:
    """Return 'key (old -> new)', by key, for each key that differs; those of `free` and each
    `root` may."""
    found: dict[str, str] = {}
    for key in [*old, *(k for k in new if k not in old)]:
        name = f"{prefix}{key}"
        if name in free or key == "root":
            continue
        a, b = (_by_place(tree.get(key)) for tree in (old, new))
        if isinstance(a, dict) and isinstance(b, dict):
            found |= differences(a, b, f"{name}.", free)
        elif a != b:
            found[name] = f"{name} ({a} -> {b})"
    return found


def _by_place(value: Any) -> Any:
    """A list of sections as a section whose keys are their places."""
    sections = isinstance(value, list) and any(isinstance(part, dict) for part in value)
    return {str(place): part for place, part in enumerate(value)} if sections else value
