"""Config -> network: the only place where names become networks, and timm's backbones."""

import difflib
import functools
from collections.abc import Sequence
from typing import Any

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
from util.config.schema import Model
from util.errors import UserError, reason

OWN = {xception.NAME: xception.Xception65}
"""CNNs that timm lacks: modules made from output stride and bands, which return a shallow map
(stride 4) and a deep one; `channels`: of both."""
# Errors of timm for a model that cannot take the requested form.
_UNFIT = (RuntimeError, ValueError, TypeError, AttributeError, AssertionError)


def network_of(options: Model, data: Data) -> Network:
    """Return the network of a config for the classes and images of its dataset."""
    return build_network(options, len(data.classes), data.num_bands, data.dates)


def build_network(
    options: Model, num_classes: int, in_channels: int = 3, dates: int = 1
) -> Network:
    """Return a network for images of `in_channels` bands, or for pairs of them.

    Raises `UserError` for a backbone that timm lacks or that the network cannot use.
    """
    build = {"deeplabv3plus": _deeplabv3plus, "pspnet": _pspnet, "dpt": _dpt, "unet": _unet}
    network = build[options.network](options, num_classes, in_channels)
    network.siamese = dates == 2
    if options.multi_grid:
        apply_multi_grid(network.backbone, options)
    if options.lock_backbone:
        network.lock_backbone()  # and keeps no activations to recompute
    elif options.checkpoint_activations:
        recompute_blocks(network.backbone)
    return network


def _deeplabv3plus(options: Model, num_classes: int, in_channels: int) -> Network:
    backbone, channels, sides = build_cnn(options.backbone, options.output_stride, in_channels)
    rates, width = options.aspp_rates, options.channels
    return DeepLabV3Plus(backbone, channels, num_classes, rates, width, sides)


def _pspnet(options: Model, num_classes: int, in_channels: int) -> Network:
    name, stride = options.backbone, options.output_stride
    backbone, channels, sides = build_cnn(name, stride, in_channels, shallow=False)
    return PSPNet(backbone, channels[-1], num_classes, sides)


def _dpt(options: Model, num_classes: int, in_channels: int) -> Network:
    vit: Any = build_vit(options.backbone, options.patch_size, in_channels)
    layers = tapped_blocks(options.backbone, len(vit.feature_info), options.layers)
    network = (
        AdaptedDPT(vit, num_classes, layers, options.lora)
        if options.lora
        else DPT(vit, num_classes, layers)
    )
    vit.blocks[layers[-1] :].requires_grad_(False)  # DDP would wait for their gradients
    return network


def _unet(options: Model, num_classes: int, in_channels: int) -> Network:
    return UNet(in_channels, num_classes, options.widths, options.dropout)


def is_backbone(name: str) -> bool:
    """Return whether timm, or `OWN`, has a model of this name."""
    return name in OWN or timm.is_model(name)


def check_name(name: str) -> None:
    """Raise `UserError` unless timm, or `OWN`, has a model of this name."""
    if not is_backbone(name):
        near = difflib.get_close_matches(name, [*timm.list_models(), *OWN], n=3)
        hint = f"; similar: {', '.join(near)}" if near else ""
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
    except _UNFIT as error:
        raise UserError(
            f"model.backbone: '{name}' is no plain ViT for images of any size ({reason(error)}), "
            "which model.network dpt needs. Fix: use a ViT of timm such as vit_small_patch14_dinov2"
        ) from None
    return as_published(vit) if is_dinov2(name) else vit


def build_cnn(
    name: str, stride: int, in_channels: int, shallow: bool = True
) -> tuple[nn.Module, Sequence[int], int]:
    """Return a CNN, the channels of its feature maps, and the number that divides an image's sides.

    The CNN returns features at stride 4 (if `shallow`) and at the output stride.
    """
    if name in OWN:
        return OWN[name](stride, in_channels), OWN[name].channels, 1
    check_name(name)
    try:
        indices, sides, least, idle = _probe(name, stride, shallow)
        backbone = _feature_maps(name, stride, out_indices=indices, in_chans=in_channels)
        backbone.least_side = least
    except _UNFIT as error:
        raise UserError(
            f"model.backbone: '{name}' has no feature maps at strides 4 and {stride} "
            f"({reason(error)}). Fix: use a CNN of timm such as resnet50s; a ViT needs "
            "model.network dpt"
        ) from None
    # HRNet's last fusions make unused maps.  Parameters without a gradient must not require one:
    # processes that average their gradients would wait for it.
    for parameter in idle:
        backbone.get_parameter(parameter).requires_grad_(False)
    return backbone, backbone.feature_info.channels(), sides


@functools.cache
def _probe(name: str, stride: int, shallow: bool) -> tuple[list[int], int, int, list[str]]:
    """Return the indices of the feature maps, the number that divides an image's sides, the least
    side, and the names of parameters without a gradient; needs no memory and keeps the random
    state."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        probe = _feature_maps(name, stride).eval()
        sides = _multiple_of_sides(probe)
        strides = probe.feature_info.reduction()
        indices = ([strides.index(4)] if shallow else []) + [len(strides) - 1]
        fitting = (s for s in _SIDES if s % sides == 0 and _takes(probe, s, s))
        least = next(fitting, 64 + sides)  # a side that `_multiple_of_sides` has tried
        return indices, sides, least, _parameters_without_part_in(probe, indices, sides)


def _feature_maps(name: str, stride: int, **options: Any) -> Any:
    """Return timm's feature extractor at this output stride; a hierarchical backbone that takes no
    output stride keeps its own strides.  Raises `ValueError` where those end in another."""
    ways: list[dict[str, Any]] = [{"output_stride": stride}, {"strict_img_size": False}, {}]
    for way in ways:
        try:
            model: Any = timm.create_model(name, features_only=True, **way, **options)
            break
        except (TypeError, AssertionError):  # HRNet asserts that the stride is its own
            if way == {}:
                raise
    own = model.feature_info.reduction()[-1]
    if "output_stride" not in way and own != stride:
        raise ValueError(f"it has strides of its own: set model.output_stride to {own}")
    return model


_SIDES = (1, 2, 4, 8, 16, 32, 64)


@torch.no_grad()
def _takes(backbone: nn.Module, height: int, width: int) -> bool:
    """Return whether a backbone takes images of this size."""
    try:
        backbone(torch.zeros(1, 3, height, width))
    except _UNFIT:
        return False
    return True


def _multiple_of_sides(backbone: nn.Module) -> int:
    """Return the number that must divide an image's sides: 1 (nearly all), 4 (Swin), 32 (HRNet).

    Raises `ValueError` for a backbone that does not take images of any size.
    """
    for multiple in (1, 4, 32):
        if _takes(backbone, 96 + multiple, 64 + multiple):
            return multiple
    raise ValueError("it does not take images of any size")


@torch.enable_grad()
def _parameters_without_part_in(
    backbone: nn.Module, indices: Sequence[int], sides: int
) -> list[str]:
    """Return the names of parameters on which the feature maps with these indices do not depend."""
    maps = backbone(torch.zeros(1, 3, 96 + sides, 64 + sides))
    names, parameters = zip(*backbone.named_parameters(), strict=True)
    taken = [maps[index].sum() for index in indices]
    gradients = torch.autograd.grad(taken, parameters, allow_unused=True)
    return [name for name, gradient in zip(names, gradients, strict=True) if gradient is None]


def apply_multi_grid(backbone: nn.Module, options: Model) -> None:
    """Multiply dilations 2, 2, 4 into the 3x3 convolutions of a ResNet's layer4 blocks.

    Raises `UserError` for a backbone without three such blocks of a single 3x3 convolution.
    """
    blocks = getattr(backbone, "layer4", ())
    convs = [block.conv2 for block in blocks if hasattr(block, "conv3") and hasattr(block, "conv2")]
    if len(convs) != 3 or not all(isinstance(conv, nn.Conv2d) for conv in convs):
        found = "unet" if options.network == "unet" else options.backbone
        raise UserError(
            f"model.multi_grid: needs a ResNet-50 or deeper, found '{found}'. Fix: set it to false"
        )
    for conv, factor in zip(convs, (2, 2, 4), strict=True):
        conv.dilation = tuple(d * factor for d in conv.dilation)
        conv.padding = tuple(p * factor for p in conv.padding)
