"""Pretrained weights of backbones, from a file or timm's hub, for any number of channels."""

import re
from collections.abc import Mapping
from typing import Any

import timm
from timm.models import adapt_input_conv
from torch import Tensor, nn

from model.checkpoint import load, load_weights, network_state, shape_of
from model.dinov2 import as_published, is_dinov2
from model.files import PRETRAINED_FOLDER, pretrained_file, require_pretrained
from model.hub import use_cache_if_offline
from model.lora import AdaptedDPT, base_names
from model.network import Network
from util.config.schema import Model
from util.errors import UserError, join_first, reason

CLASSIFIERS = {"bn2", "classifier", "conv_head", "fc", "head", "norm_head", "pre_logits"}
"""Modules of timm's networks that follow the last features."""


def load_backbone(network: Network, model_config: Model, in_channels: int) -> str:
    """Load the pretrained weights that the config names; return a line for the log.

    Raises `UserError` for missing weights, and for those of another network.
    """
    name = "U-Net" if model_config.network == "unet" else model_config.backbone
    if model_config.pretrained == "none":
        return f"{name}: random weights (model.pretrained: none)"
    file = pretrained_file(model_config)
    if file is not None:
        require_pretrained(file)
        state: Mapping[str, Tensor] = network_state(load(file), file)
        source = str(file)
    elif model_config.network == "unet":
        raise UserError(
            f"model.pretrained: found {model_config.pretrained}, but a U-Net's encoder has no "
            "published weights. Fix: set it to none, or to the path of a .pth file"
        )
    else:
        state, source = hub_weights(name), f"timm hub, {name}"
    state, remark = inflate_stem(state, in_channels)
    report = load_backbone_state(network.backbone, state, source)
    if isinstance(network, AdaptedDPT):
        network.store_base_hash()
    return report + remark


def hub_weights(name: str) -> Mapping[str, Tensor]:
    """Return timm's weights of a model; raises `UserError` when they cannot be downloaded."""
    use_cache_if_offline()
    try:
        donor: Any = timm.create_model(name, pretrained=True)
    except Exception as error:  # raised by the network, the hub or its client
        raise UserError(
            f"model.pretrained: hub weights of '{name}' cannot be loaded ({reason(error)}). Fix: "
            f"put them into {PRETRAINED_FOLDER / name}.pth and --set model.pretrained=file, or "
            "--set model.pretrained=none to train from random weights (lower scores)"
        ) from None
    return (as_published(donor) if is_dinov2(name) else donor).state_dict()


def inflate_stem(state: Mapping[str, Tensor], in_channels: int) -> tuple[Mapping[str, Tensor], str]:
    """Convert weights for RGB to `in_channels` channels, and return a remark if they changed.

    As in timm, one channel takes the sum of the first convolution's three; more channels repeat
    them in turn, scaled by 3 / `in_channels`.
    """
    stems = [k for k, v in state.items() if v.ndim == 4 and v.shape[1] == 3]
    if in_channels == 3 or not stems:
        return state, ""
    how = "summed to 1 channel" if in_channels == 1 else f"repeated to {in_channels} channels"
    inflated = adapt_input_conv(in_channels, state[stems[0]])
    return {**state, stems[0]: inflated}, f"; {stems[0]} of 3 channels {how}"


def pair_names(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> tuple[dict[str, str], list[str]]:
    """Return the names of a file's entries by the backbone's names, and the backbone's names that
    are missing in the file or have another shape.

    timm's feature extractors write some dots as underscores (stages_0 for stages.0).
    """
    given = {name.replace(".", "_"): name for name in state}
    found = {k: given.get(k.replace(".", "_")) for k in own}
    names = {k: name for k, name in found.items() if name is not None}
    lacking = [k for k in own if k not in names and not k.endswith("num_batches_tracked")]
    lacking += [k for k, name in names.items() if shape_of(state[name]) != shape_of(own[k])]
    return names, lacking


def load_backbone_state(backbone: nn.Module, state: Mapping[str, Tensor], source: object) -> str:
    """Load pretrained weights into a backbone; return a report.

    Reports entries that the backbone lacks (a classifier); raises `UserError` for missing ones.
    """
    whole = backbone.state_dict()
    inside = base_names(backbone)
    own = {name: whole[name_inside] for name, name_inside in inside.items()}
    if "norm.weight" in own and "norm.weight" not in state:  # timm's name before average pooling
        state = {re.sub(r"^fc_norm\.", "norm.", name): value for name, value in state.items()}
    names, lacking = pair_names(own, state)
    if lacking:
        raise UserError(
            f"{source}: not the weights of this backbone; {len(lacking)} of {len(own)} missing or "
            f"of another shape: {join_first(lacking, 3)}. Fix: python -m tools.weights check FILE "
            "reports what a file holds and how to convert it"
        )
    loaded = {inside[k]: state[name] for k, name in names.items()}
    load_weights(backbone, whole | loaded, source)
    report = f"{source}: {len(loaded)} entries loaded"
    unused = [name for name in state if name not in names.values()]
    if not unused:
        return report
    if all(name.partition(".")[0] in CLASSIFIERS for name in unused):
        return f"{report}; {len(unused)} not needed (the classifier: {join_first(unused, 3)})"
    return f"{report}, {len(unused)} unused: {join_first(unused, 3)}"
