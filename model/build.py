"""Config -> network: the only place where names become networks."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from huggingface_hub import constants
from torch import nn

from model import xception
from model.deeplabv3plus import DeepLabV3Plus
from model.dinov2 import as_published, is_dinov2
from model.dpt import DPT
from model.network import Network
from model.recompute import recompute_blocks
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

# What timm raises for a model that cannot be had in the form asked for.
_UNFIT = (RuntimeError, ValueError, TypeError, AttributeError, AssertionError)


def _reason(error: Exception) -> str:
    """The first line of what went wrong, of a length that fits into one."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def build_network(options: Model, num_classes: int) -> Network:
    """The network of a config.

    Raises `UserError` for a backbone that timm lacks or that this kind of network cannot use.
    """
    build = {"deeplabv3plus": build_deeplabv3plus, "dpt": build_dpt}[options.network]
    network = build(options, num_classes)
    if options.lock_backbone:
        network.lock_backbone()  # and then there are no activations to do without
    elif options.checkpoint_activations:
        recompute_blocks(network.backbone)
    return network


def load_network(options: Model, num_classes: int, path: Path, which: str = "model") -> Network:
    """The network of a config with the weights of a checkpoint, in any published form.

    Parts beside the network's own, which a method has for training alone (CorrMatch's correlation
    head), are left out.  Raises `UserError` when the weights are not those of this network and
    number of classes.
    """
    whole = load(path)
    state = network_state(whole, path, which)
    refuse_another_network(whole, options, num_classes, path)
    network = build_network(options, num_classes)
    parts = dict(network.named_children())
    own = {name: value for name, value in state.items() if name.partition(".")[0] in parts}
    load_weights(network, own or state, path)
    return network.eval()


# What the weights of a network do not depend on.
_FREE = {"pretrained", "lock_backbone", "checkpoint_activations"}


def refuse_another_network(state: Any, options: Model, num_classes: int, path: Path) -> None:
    """Raise `UserError` for a checkpoint of this project whose own config has another network, or
    another number of classes; of others only their weights tell."""
    own = state.get("config") if isinstance(state, dict) else None
    if not isinstance(own, dict):
        return
    try:
        classes, old, new = own["data"]["classes"], own["model"], options.model_dump(mode="json")
        keys = [key for key in old if key in new and key not in _FREE]
        wrong = [f"model.{k} ({old[k]} -> {new[k]})" for k in keys if old[k] != new[k]]
        if len(classes) != num_classes:
            wrong = [f"data.classes ({len(classes)} -> {num_classes})", *wrong]
    except (KeyError, TypeError):
        return  # an odd one: its weights tell
    beside = path.parent / "config.yaml"
    hint = f"; its config lies beside it: --config {beside}" if beside.exists() else ""
    if wrong:
        raise UserError(f"{path}: the config differs from its own in {'; '.join(wrong)}{hint}")


def build_deeplabv3plus(options: Model, num_classes: int) -> Network:
    backbone, channels = build_cnn(options.backbone, options.output_stride)
    if options.multi_grid:
        apply_multi_grid(backbone, options.backbone)
    return DeepLabV3Plus(backbone, channels, num_classes, options.aspp_rates, options.channels)


def build_dpt(options: Model, num_classes: int) -> Network:
    return DPT(build_vit(options.backbone, options.patch_size), num_classes)


def check_name(name: str) -> None:
    """Raise `UserError` unless timm has a model of this name."""
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, [*timm.list_models(), xception.NAME], n=3)
        hint = f"; like it: {', '.join(near)}" if near else ""
        raise UserError(f"model.backbone: timm has no '{name}'{hint}")


def build_vit(name: str, patch_size: int | None = None) -> nn.Module:
    """A plain ViT of timm, that is, of blocks of one width, for images of any size."""
    check_name(name)
    own: dict[str, Any] = {} if patch_size is None else {"patch_size": patch_size}
    try:
        vit: Any = timm.create_model(
            name, num_classes=0, global_pool="", dynamic_img_size=True, **own
        )
        if len({(block["num_chs"], block["reduction"]) for block in vit.feature_info}) != 1:
            raise ValueError("its blocks differ in width or stride")
    except _UNFIT as error:
        raise UserError(
            f"model.backbone: '{name}' is no plain ViT for images of any size ({_reason(error)}), "
            "which model.network dpt needs; choose one of timm such as vit_small_patch14_dinov2"
        ) from None
    return as_published(vit) if is_dinov2(name) else vit


def build_cnn(name: str, stride: int) -> tuple[nn.Module, Sequence[int]]:
    """A network that returns its features at stride 4 and at the output stride, and their
    channels."""
    if name == xception.NAME:
        return xception.Xception65(stride), xception.Xception65.channels
    check_name(name)
    try:
        with torch.random.fork_rng(devices=[]):  # a look must not change the initial weights
            probe = timm.create_model(name, features_only=True, output_stride=stride)
        strides = _feature_info(probe)
        indices = (strides.reduction().index(4), len(strides.reduction()) - 1)
        backbone = timm.create_model(
            name, features_only=True, output_stride=stride, out_indices=indices
        )
    except _UNFIT as error:
        raise UserError(
            f"model.backbone: '{name}' has no feature maps at strides 4 and {stride} "
            f"({_reason(error)}); choose a CNN of timm such as resnet50s;"
            " a ViT needs model.network dpt"
        ) from None
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
    ask_hub_once()
    try:
        donor: Any = timm.create_model(name, pretrained=True)
    except Exception as error:  # whatever the network, the hub or its client raises
        raise UserError(
            f"model.pretrained: hub weights of '{name}' cannot be had ({_reason(error)}); "
            f"put them into {PRETRAINED / name}.pth and set model.pretrained to file"
        ) from None
    if is_dinov2(name):
        donor = as_published(donor)
    return load_backbone_state(network.backbone, donor.state_dict(), f"timm hub, {name}")


def ask_hub_once() -> None:
    """Where timm's hub cannot be reached, have its client look into its cache alone: it would ask
    again and again for a minute, even for what lies there."""
    try:
        huggingface_hub.get_session().head(constants.ENDPOINT, timeout=10)
    except Exception:  # of whichever client of the hub's
        constants.HF_HUB_OFFLINE = True
