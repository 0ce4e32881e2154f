"""Config -> network: the only place where names become networks."""

import difflib
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from model.correlation import add_correlation_head
from model.deeplabv3plus import DeepLabV3Plus
from model.network import Network
from util.checkpoint import (
    load,
    load_backbone_state,
    load_weights,
    network_state,
    read_pretrained,
)
from util.config import Model
from util.errors import UserError

PRETRAINED = Path("pretrained")


def build_network(options: Model, num_classes: int, correlation: bool = False) -> Network:
    """The network of a config, with CorrMatch's correlation head on demand.

    Raises `UserError` for a backbone that timm lacks or that cannot have this output stride.
    """
    backbone, channels = build_backbone(options)
    network = DeepLabV3Plus(backbone, channels, num_classes, options.aspp_rates, options.channels)
    if correlation:
        add_correlation_head(network, options.channels)
    return network


def load_network(options: Model, num_classes: int, path: Path, which: str = "model") -> Network:
    """The network of a config with the weights of a checkpoint, in any published form.

    A correlation head is there when the checkpoint has one.  Raises `UserError` when the weights
    are not those of this network and number of classes.
    """
    state = network_state(load(path), path, which)
    network = build_network(options, num_classes, correlation="corr.conv1.weight" in state)
    load_weights(network, state, path)
    return network.eval()


def build_backbone(options: Model) -> tuple[nn.Module, list[int]]:
    """A timm network that returns its features at stride 4 and at the output stride, and their
    channels."""
    name, stride = options.backbone, options.output_stride
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; like it: {', '.join(near)}" if near else ""
        raise UserError(f"model.backbone: timm has no '{name}'{hint}")
    try:
        with torch.random.fork_rng(devices=[]):  # a look must not change the initial weights
            probe = timm.create_model(name, features_only=True, output_stride=stride)
        strides = _feature_info(probe)
        indices = (strides.reduction().index(4), len(strides.reduction()) - 1)
        backbone = timm.create_model(
            name, features_only=True, output_stride=stride, out_indices=indices
        )
    except (RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines() or [type(error).__name__]
        raise UserError(
            f"model.backbone: '{name}' has no feature maps at strides 4 and {stride} "
            f"({reason[0]}); choose a CNN of timm such as resnet50s"
        ) from None
    if options.multi_grid:
        apply_multi_grid(backbone, name)
    return backbone, _feature_info(backbone).channels()


def _feature_info(backbone: nn.Module) -> Any:
    return backbone.feature_info


def apply_multi_grid(backbone: nn.Module, name: str) -> None:
    """Multiply dilations 2, 2, 4 into the 3x3 convolutions of a ResNet's layer4 blocks."""
    blocks = getattr(backbone, "layer4", None)
    if blocks is None or len(blocks) != 3:
        raise UserError(f"model.multi_grid: needs a ResNet-50 or deeper, found '{name}'")
    for block, factor in zip(blocks, (2, 2, 4), strict=True):
        conv = block.conv2
        conv.dilation = tuple(d * factor for d in conv.dilation)
        conv.padding = tuple(p * factor for p in conv.padding)


def load_backbone(network: Network, options: Model) -> str:
    """Load the pretrained backbone that the config asks for; returns one line that says what.

    Raises `UserError` when it cannot be had, or is of another network.
    """
    source, name = options.pretrained, options.backbone
    if source == "none":
        return f"{name}: random weights (model.pretrained: none)"
    if source != "hub":
        path = PRETRAINED / f"{name}.pth" if source == "file" else Path(source)
        return load_backbone_state(network.backbone, read_pretrained(path), path)
    try:
        state = timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # whatever the network, the hub or its client raises
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"model.pretrained: hub weights of '{name}' cannot be had ({reason[0][:200]}); "
            f"put them into {PRETRAINED / name}.pth and set model.pretrained to file"
        ) from None
    return load_backbone_state(network.backbone, state, f"timm hub, {name}")
