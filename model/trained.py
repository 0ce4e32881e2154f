"""Networks with the weights of a checkpoint."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from model.acceleration import use_layout
from model.build import network_of
from model.checkpoint import load, load_weights, network_state
from model.network import Network
from model.pretrained import load_backbone
from util.config.data import Data
from util.config.schema import Config, Model
from util.errors import UserError, counted, join_first
from util.log import logger


def load_network(options: Model, data: Data, path: Path, which: str = "model") -> Network:
    """Return the network of a config with the weights of a checkpoint, in any published format.

    Parts of the method (CorrMatch's correlation head) are left out, with a warning.  A checkpoint
    of adapters needs the pretrained weights, too.  Raises `UserError` for weights of another
    network or other classes.
    """
    whole = load(path)
    state = network_state(whole, path, which)
    compare_configs(whole, options, data, path)
    network = network_of(options, data)
    if options.lora:
        load_backbone(network, options, data.num_bands)
    parts = dict(network.named_children())
    own = {name: value for name, value in state.items() if name.partition(".")[0] in parts}
    load_weights(network, own or state, path)
    if left := [name for name in state if name not in own]:
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


# Keys that do not affect the weights of a network.
_FREE = {"pretrained", "lock_backbone", "checkpoint_activations", "dropout"}
# Keys of `data` that decide which values a network sees.
_INPUTS = ("bands", "image_range", "mean", "std")


def compare_configs(state: Any, options: Model, data: Data, path: Path) -> None:
    """Compare a config with the config inside a checkpoint of this project.

    Raises `UserError` for another network, pairs instead of single images, another number of
    classes, or the same names in another order.  Logs a warning for other names, which may be the
    same classes of another dataset, and for other bands or another normalisation.
    """
    own = state.get("config") if isinstance(state, dict) else None
    if not isinstance(own, dict):
        return
    try:
        before, new = own["data"]["classes"], options.model_dump(mode="json")
        free = _FREE | ({"multi_grid"} if options.network in ("dpt", "unet") else set())
        wrong = _changes("model", own["model"], new, [key for key in new if key not in free])
        seen = _changes("data", own["data"], data.model_dump(mode="json"), _INPUTS)
        was_pairs, is_pairs = own["data"].get("pair") is not None, data.dates == 2
        renamed = [(a, b) for a, b in zip(before, data.classes, strict=False) if a != b]
    except (KeyError, TypeError):
        return  # an odd config: the weights decide
    if was_pairs != is_pairs:
        samples = {True: "pairs", False: "single images"}
        wrong.insert(0, f"data.pair ({samples[was_pairs]} -> {samples[is_pairs]})")
    names = ", ".join(f"{a} -> {b}" for a, b in renamed[:4]) + ", ..." * (len(renamed) > 4)
    if len(before) != len(data.classes):
        wrong.insert(0, f"data.classes ({len(before)} -> {len(data.classes)})")
    elif any(name in before for _, name in renamed):  # a known class in another place
        wrong.insert(0, f"data.classes ({names})")
    beside = path.parent / "config.yaml"
    hint = f". Fix: --config {beside}" if beside.exists() else ""
    if wrong:
        raise UserError(f"{path}: the config differs from its own in {'; '.join(wrong)}{hint}")
    if renamed:
        logger.warning("%s: trained with other names of classes (%s)%s", path, names, hint)
    for difference in seen:
        logger.warning("%s: trained with other %s%s", path, difference, hint)


def _changes(section: str, old: Any, new: dict[str, Any], keys: Iterable[str]) -> list[str]:
    """Return the keys whose values differ, as 'section.key (old -> new)'; `old` may lack some."""
    changed = [key for key in keys if key in old and old[key] != new[key]]
    return [f"{section}.{key} ({old[key]} -> {new[key]})" for key in changed]
