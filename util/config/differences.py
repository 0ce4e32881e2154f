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
SPLIT_KEYS = {"data.labeled", "data.unlabeled", "data.val"}
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
"""Keys that, if changed, make earlier validation scores incomparable."""


def flat_settings(
    tree: Mapping[str, Any], ignored_keys: Collection[str] = RESUMABLE_KEYS, prefix: str = ""
) -> dict[str, Any]:
    """Return the values of a config by dotted key, those in lists of sections by position, without
    `ignored_keys`, the keys of splits, and each `root`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if name in ignored_keys or name in SPLIT_KEYS or key == "root":
            continue
        if isinstance(value, list) and any(isinstance(part, dict) for part in value):
            value = {str(index): part for index, part in enumerate(value)}
        if isinstance(value, dict):
            flat |= flat_settings(value, ignored_keys, f"{name}.")
        else:
            flat[name] = value
    return flat


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], ignored_keys: Collection[str] = RESUMABLE_KEYS
) -> dict[str, str]:
    """Return 'key (old -> new)', by key, for each of the `flat_settings` that differs."""
    before, after = (flat_settings(tree, ignored_keys) for tree in (old, new))
    return {
        key: f"{key} ({before.get(key)} -> {after.get(key)})"
        for key in before | after
        if before.get(key) != after.get(key)
    }


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
