"""Config -> network: the only place where names become networks."""

from typing import Any

from model.backbones import apply_multi_grid, build_cnn, build_vit
from model.deeplabv3plus import DeepLabV3Plus
from model.dpt import DPT, tapped_blocks
from model.lora import AdaptedDPT
from model.network import Network
from model.pspnet import PSPNet
from model.recompute import recompute_blocks
from model.unet import UNet
from util.config.data import Data
from util.config.schema import Model


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
    if options.lock_backbone:
        network.lock_backbone()  # and keeps no activations to recompute
    elif options.checkpoint_activations:
        recompute_blocks(network.backbone)
    return network


def _deeplabv3plus(options: Model, num_classes: int, in_channels: int) -> Network:
    backbone, channels, sides = build_cnn(options.backbone, options.output_stride, in_channels)
    if options.multi_grid:
        apply_multi_grid(backbone, options.backbone)
    rates, width = options.aspp_rates, options.channels
    return DeepLabV3Plus(backbone, channels, num_classes, rates, width, sides)


def _pspnet(options: Model, num_classes: int, in_channels: int) -> Network:
    name, stride = options.backbone, options.output_stride
    backbone, channels, sides = build_cnn(name, stride, in_channels, shallow=False)
    return PSPNet(backbone, channels[-1], num_classes, sides)


def _dpt(options: Model, num_classes: int, in_channels: int) -> Network:
    vit: Any = build_vit(options.backbone, options.patch_size, in_channels)
    layers = tapped_blocks(options.backbone, len(vit.feature_info), options.layers)
    if options.lora:
        return AdaptedDPT(vit, num_classes, layers, options.lora)
    return DPT(vit, num_classes, layers)


def _unet(options: Model, num_classes: int, in_channels: int) -> Network:
    return UNet(in_channels, num_classes, options.widths, options.dropout)
