"""Config -> network: the only place where names become networks, and timm's backbones."""

import difflib
import functools
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import timm
import torch
from torch import nn

from model import xception
from model.deeplabv3plus import DeepLabV3Plus
from model.dinov2 import as_published, is_dinov2
from model.dpt import DPT, tapped_blocks
from model.lora import AdaptedDPT
from model.network import Network
from model.pspnet import PSPNet
from model.recompute import recompute_blocks
from model.unet import UNet
from util.config.data import Data
from util.config.schema import Config, Model
from util.errors import UserError, reason

CNNS_NOT_IN_TIMM = {xception.NAME: xception.Xception65}
"""CNNs that timm does not have, by name. Each takes output stride and channels, and returns a
shallow (stride 4) and a deep feature map; `channels`: of both."""
# Errors of timm for a model that cannot take the requested form.
_UNFIT_ERRORS = (RuntimeError, ValueError, TypeError, AttributeError, AssertionError)
# Sides to try for the least one that a backbone takes.
_SIDES_TO_TRY = (1, 2, 4, 8, 16, 32, 64)


def network_from_config(model_config: Model, data: Data) -> Network:
    """Return the network of a config for the classes and images of its dataset."""
    return build_network(model_config, len(data.classes), data.num_bands, data.dates)


def another_network(first: Network, config: Config) -> Network:
    """Return a further network of the config for a method: random weights of its own, but the
    pretrained backbone of `first`."""
    network = network_from_config(config.model, config.data)
    if config.model.pretrained != "none":
        network.backbone.load_state_dict(first.backbone.state_dict())
    return network


def build_network(
    model_config: Model, num_classes: int, in_channels: int = 3, dates: int = 1
) -> Network:
    """Return a network for images of `in_channels` channels, or for pairs of them.

    Raises `UserError` for a backbone that timm lacks or that the network cannot use.
    """
    build = {"deeplabv3plus": _deeplabv3plus, "pspnet": _pspnet, "dpt": _dpt, "unet": _unet}
    network = build[model_config.network](model_config, num_classes, in_channels)
    network.siamese = dates == 2
    if model_config.multi_grid:
        apply_multi_grid(network.backbone, model_config)
    if model_config.lock_backbone:
        network.lock_backbone()  # and keeps no activations to recompute
    elif model_config.checkpoint_activations:
        recompute_blocks(network.backbone)
    return network


def _deeplabv3plus(model_config: Model, num_classes: int, in_channels: int) -> Network:
    name, stride = model_config.backbone, model_config.output_stride
    backbone, channels = build_cnn(name, stride, in_channels)
    rates, width = model_config.aspp_rates, model_config.channels
    return DeepLabV3Plus(backbone, channels, num_classes, rates, width)


def _pspnet(model_config: Model, num_classes: int, in_channels: int) -> Network:
    name, stride = model_config.backbone, model_config.output_stride
    backbone, channels = build_cnn(name, stride, in_channels, shallow=False)
    return PSPNet(backbone, channels[-1], num_classes)


def _dpt(model_config: Model, num_classes: int, in_channels: int) -> Network:
    vit: Any = build_vit(model_config.backbone, model_config.patch_size, in_channels)
    layers = tapped_blocks(model_config.backbone, len(vit.feature_info), model_config.layers)
    network = (
        AdaptedDPT(vit, num_classes, layers, model_config.lora)
        if model_config.lora
        else DPT(vit, num_classes, layers)
    )
    vit.blocks[layers[-1] :].requires_grad_(False)  # DDP would wait for their gradients
    return network


def _unet(model_config: Model, num_classes: int, in_channels: int) -> Network:
    return UNet(in_channels, num_classes, model_config.widths, model_config.dropout)


def is_backbone(name: str) -> bool:
    """Return True if timm, or `CNNS_NOT_IN_TIMM`, has a model of this name."""
    return name in CNNS_NOT_IN_TIMM or timm.is_model(name)


def check_name(name: str) -> None:
    """Raise `UserError` unless timm, or `CNNS_NOT_IN_TIMM`, has a model of this name."""
    if not is_backbone(name):
        similar = difflib.get_close_matches(name, [*timm.list_models(), *CNNS_NOT_IN_TIMM], n=3)
        hint = f"; similar: {', '.join(similar)}" if similar else ""
        raise UserError(f"model.backbone: timm has no '{name}'{hint}")


def build_vit(name: str, patch_size: int | None, in_channels: int) -> nn.Module:
    """Return a plain ViT of timm (all blocks have one width) for images of any size."""
    check_name(name)
    try:
        vit: Any = timm.create_model(
            name,
            num_classes=0,
            global_pool="",
            dynamic_img_size=True,
            in_chans=in_channels,
            patch_size=patch_size,  # timm ignores None
        )
        if len({(block["num_chs"], block["reduction"]) for block in vit.feature_info}) != 1:
            raise ValueError("its blocks differ in width or stride")
    except _UNFIT_ERRORS as error:
        raise UserError(
            f"model.backbone: '{name}' is no plain ViT for images of any size ({reason(error)}), "
            "which model.network dpt needs. Fix: use a ViT of timm such as vit_small_patch14_dinov2"
        ) from None
    return as_published(vit) if is_dinov2(name) else vit


def build_cnn(
    name: str, stride: int, in_channels: int, shallow: bool = True
) -> tuple[nn.Module, Sequence[int]]:
    """Return a CNN and the channels of its feature maps.

    The CNN returns features at stride 4 (if `shallow`) and at the output stride; its attributes
    `size_multiple` and `min_side` limit the sides of an image.
    """
    if name in CNNS_NOT_IN_TIMM:
        return CNNS_NOT_IN_TIMM[name](stride, in_channels), CNNS_NOT_IN_TIMM[name].channels
    check_name(name)
    try:
        facts = _probe(name, stride, shallow)
        backbone = _feature_maps(name, stride, out_indices=facts.indices, in_chans=in_channels)
        backbone.size_multiple, backbone.min_side = facts.size_multiple, facts.min_side
    except _UNFIT_ERRORS as error:
        raise UserError(
            f"model.backbone: '{name}' has no feature maps at strides 4 and {stride} "
            f"({reason(error)}). Fix: use a CNN of timm such as resnet50s; a ViT needs "
            "model.network dpt"
        ) from None
    # HRNet's last fusions make unused maps. Parameters without a gradient must not require one:
    # processes that average their gradients would wait for it.
    for parameter in facts.unused_parameters:
        backbone.get_parameter(parameter).requires_grad_(False)
    return backbone, backbone.feature_info.channels()


class BackboneFacts(NamedTuple):
    """Facts of a CNN of timm that are known only once it has run."""

    indices: list[int]
    """Indices of the feature maps that the network uses."""
    size_multiple: int
    """Number that must divide the sides of an image."""
    min_side: int
    unused_parameters: list[str]
    """Names of parameters without a gradient."""


@functools.cache
def _probe(name: str, stride: int, shallow: bool) -> BackboneFacts:
    """Find the facts of a backbone on the meta device: without memory and random numbers."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        probe = _feature_maps(name, stride).eval()
        multiple = _size_multiple(probe)
        strides = probe.feature_info.reduction()
        indices = ([strides.index(4)] if shallow else []) + [len(strides) - 1]
        fitting = (s for s in _SIDES_TO_TRY if s % multiple == 0 and _takes_size(probe, s, s))
        least = next(fitting, 64 + multiple)  # a side that `_size_multiple` has tried
        unused = _unused_parameters(probe, indices, multiple)
        return BackboneFacts(indices, multiple, least, unused)


def _feature_maps(name: str, stride: int, **options: Any) -> Any:
    """Return timm's feature extractor at this output stride. A hierarchical backbone takes no
    output stride; raises `ValueError` where its deepest map has another stride."""
    create = functools.partial(timm.create_model, name, features_only=True, **options)
    with suppress(TypeError, AssertionError):  # HRNet asserts that the stride is its own
        return create(output_stride=stride)
    extractor = _with_own_strides(create)
    deepest = extractor.feature_info.reduction()[-1]
    if deepest != stride:
        raise ValueError(f"it has strides of its own: set model.output_stride to {deepest}")
    return extractor


def _with_own_strides(create: Callable[..., Any]) -> Any:
    """Return a feature extractor at its own strides, for images of any size where timm checks it
    (Swin)."""
    with suppress(TypeError, AssertionError):
        return create(strict_img_size=False)
    return create()


@torch.no_grad()
def _takes_size(backbone: nn.Module, height: int, width: int) -> bool:
    try:
        backbone(torch.zeros(1, 3, height, width))
    except _UNFIT_ERRORS:
        return False
    return True


def _size_multiple(backbone: nn.Module) -> int:
    """Return the number that must divide an image's sides: 1 (nearly all), 4 (Swin), 32 (HRNet).

    Raises `ValueError` for a backbone that does not take images of any size.
    """
    for multiple in (1, 4, 32):
        if _takes_size(backbone, 96 + multiple, 64 + multiple):
            return multiple
    raise ValueError("it does not take images of any size")


@torch.enable_grad()
def _unused_parameters(backbone: nn.Module, indices: Sequence[int], multiple: int) -> list[str]:
    """Return the names of parameters on which the feature maps with these indices do not depend."""
    maps = backbone(torch.zeros(1, 3, 96 + multiple, 64 + multiple))
    names, parameters = zip(*backbone.named_parameters(), strict=True)
    sums = [maps[index].sum() for index in indices]
    gradients = torch.autograd.grad(sums, parameters, allow_unused=True)
    return [name for name, gradient in zip(names, gradients, strict=True) if gradient is None]


def apply_multi_grid(backbone: nn.Module, model_config: Model) -> None:
    """Multiply dilations 2, 2, 4 into the 3x3 convolutions of a ResNet's layer4 blocks.

    Raises `UserError` for a backbone without three such blocks of a single 3x3 convolution.
    """
    blocks = getattr(backbone, "layer4", ())
    convs = [block.conv2 for block in blocks if hasattr(block, "conv3") and hasattr(block, "conv2")]
    if len(convs) != 3 or not all(isinstance(conv, nn.Conv2d) for conv in convs):
        found = "unet" if model_config.network == "unet" else model_config.backbone
        raise UserError(
            f"model.multi_grid: needs a ResNet-50 or deeper, found '{found}'. Fix: set it to false"
        )
    for conv, factor in zip(convs, (2, 2, 4), strict=True):
        conv.dilation = tuple(d * factor for d in conv.dilation)
        conv.padding = tuple(p * factor for p in conv.padding)
