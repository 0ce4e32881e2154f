"""Networks with the weights of a checkpoint."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from model.acceleration import use_layout
from model.build import network_from_config
from model.checkpoint import load, load_weights, network_state
from model.network import Network
from model.pretrained import load_backbone
from util.config.data import Data
from util.config.schema import Config, Model
from util.errors import UserError, counted, join_first
from util.log import logger


def load_network(model_config: Model, data: Data, path: Path, which: str = "model") -> Network:
    """Return the network of a config with the weights of a checkpoint, in any published format.

    Parts of the method (CorrMatch's correlation head) are left out, with a warning. A checkpoint
    of adapters needs the pretrained weights, too. Raises `UserError` for weights of another
    network or other classes.
    """
    content = load(path)
    state = network_state(content, path, which)
    compare_configs(content, model_config, data, path)
    network = network_from_config(model_config, data)
    if model_config.lora:
        load_backbone(network, model_config, data.num_bands)
    parts = dict(network.named_children())
    weights = {name: value for name, value in state.items() if name.partition(".")[0] in parts}
    load_weights(network, weights or state, path)
    if left := [name for name in state if name not in weights]:
        logger.warning(
            "%s: ignored %s that the network does not have: %s",
            path, counted(len(left), "weight"), join_first(left, 3),
        )  # fmt: skip
    return network.eval()


def load_trained(config: Config, path: Path, which: str, device: torch.device) -> Network:
    """Call `load_network` for a whole config; return the network on the device, in its layout."""
    network = load_network(config.model, config.data, path, which).to(device)
    use_layout(network, config)
    return network


# Keys of `model` that do not affect the weights of a network.
_NO_WEIGHTS = {"pretrained", "lock_backbone", "checkpoint_activations", "dropout"}
# Keys of `data` that decide which values a network sees.
_INPUT_KEYS = ("bands", "image_range", "mean", "std")


def compare_configs(content: Any, model_config: Model, data: Data, path: Path) -> None:
    """Compare a config with the config inside a checkpoint (`content`) of this project.

    Raises `UserError` for another network, pairs instead of single images, another number of
    classes, or the same names in another order. Logs a warning for other names, which may be the
    same classes of another dataset, and for other bands or another normalisation.
    """
    trained = content.get("config") if isinstance(content, dict) else None
    if not isinstance(trained, dict):
        return
    new = model_config.model_dump(mode="json")
    ignored = _NO_WEIGHTS | ({"multi_grid"} if model_config.network in ("dpt", "unet") else set())
    try:
        before = trained["data"]["classes"]
        wrong = _changes("model", trained["model"], new, [key for key in new if key not in ignored])
        inputs = _changes("data", trained["data"], data.model_dump(mode="json"), _INPUT_KEYS)
        was_pairs, is_pairs = trained["data"].get("pair") is not None, data.dates == 2
        renamed = [(a, b) for a, b in zip(before, data.classes, strict=False) if a != b]
    except (KeyError, TypeError):
        return  # an odd config: the weights decide
    if was_pairs != is_pairs:
        samples = {True: "pairs", False: "single images"}
        wrong.insert(0, f"data.pair ({samples[was_pairs]} -> {samples[is_pairs]})")
    names = ", ".join(f"{a} -> {b}" for a, b in renamed[:4]) + (", ..." if renamed[4:] else "")
    if len(before) != len(data.classes):
        wrong.insert(0, f"data.classes ({len(before)} -> {len(data.classes)})")
    elif any(name in before for _, name in renamed):  # a known class in another place
        wrong.insert(0, f"data.classes ({names})")
    run_config = path.parent / "config.yaml"
    hint = f". Fix: --config {run_config}" if run_config.exists() else ""
    if wrong:
        raise UserError(f"{path}: the config differs from its own in {'; '.join(wrong)}{hint}")
    if renamed:
        logger.warning("%s: trained with other class names (%s)%s", path, names, hint)
    for change in inputs:
        logger.warning("%s: trained with another config: %s%s", path, change, hint)


def _changes(section: str, old: Any, new: dict[str, Any], keys: Iterable[str]) -> list[str]:
    """Return the keys whose values differ, as 'section.key (old -> new)'; `old` may lack some."""
    changed = [key for key in keys if key in old and old[key] != new[key]]
    return [f"{section}.{key} ({old[key]} -> {new[key]})" for key in changed]
