"""Differences between configs: which keys a resumed run, or another machine, may change."""

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import ValidationError

from util.config.schema import Config

RESUMABLE_KEYS = {
    "data.background",
    "data.palette",
    "data.test",
    "data.workers",
    "data.cache_mb",
    "data.check_samples",
    "data.max_megapixels",
    "evaluation.spacing",  # used by evaluate.py only
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
"""Keys that may change before a run is resumed, as they change no result; so may each `root`."""
SPLITS = {"data.labeled", "data.unlabeled", "data.val"}
"""Keys whose images are compared instead, see `image_differences`."""
PER_MACHINE_KEYS = {"data.workers", "data.cache_mb", "evaluation.window_batch"}
"""Keys that may differ between the machines of a run; so may each `root`."""


def with_defaults(tree: dict[str, Any]) -> dict[str, Any]:
    """Return a saved config with the defaults of newer keys."""
    try:
        return Config.model_validate(tree).model_dump(mode="json")
    except ValidationError:  # removed keys: reported by `differences`
        return tree


SCORE_KEYS = (
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
    old: dict[str, Any],
    new: dict[str, Any],
    prefix: str = "",
    ignored_keys: Collection[str] = RESUMABLE_KEYS,
) -> dict[str, str]:
    """Return 'key (old -> new)', by key, for each key that differs, except `ignored_keys`, the
    keys of splits, and each `root`."""
    found: dict[str, str] = {}
    for key in [*old, *(k for k in new if k not in old)]:
        name = f"{prefix}{key}"
        if name in ignored_keys or name in SPLITS or key == "root":
            continue
        a, b = (_by_position(tree.get(key)) for tree in (old, new))
        if isinstance(a, dict) and isinstance(b, dict):
            found |= differences(a, b, f"{name}.", ignored_keys)
        elif a != b:
            found[name] = f"{name} ({a} -> {b})"
    return found


def image_differences(
    old: Mapping[str, dict[str, Any]], new: Mapping[str, dict[str, Any]]
) -> dict[str, str]:
    """Return the changed splits as 'key (before -> now)' by key, from their identities (see
    `dataset.split_files.split_identity`)."""
    found = {}
    for name, now in new.items():
        if (before := old[name]) != now:
            key = f"data.{name} images"
            other = " other" if before["images"] == now["images"] else ""
            found[key] = f"{key} ({before['images']} -> {now['images']}{other})"
    return found


def _by_position(value: Any) -> Any:
    """Convert a list of sections to a section with their positions as keys."""
    sections = isinstance(value, list) and any(isinstance(part, dict) for part in value)
    return {str(index): part for index, part in enumerate(value)} if sections else value
