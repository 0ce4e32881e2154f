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


def build_network(
    options: Model, num_classes: int, in_channels: int = 3, dates: int = 1
) -> Network:
    """The network of a config, for images of so many bands, or for pairs of such.

    Raises `UserError` for a backbone that timm lacks or that this kind of network cannot use.
    """
    build = {
        "deeplabv3plus": build_deeplabv3plus,
        "pspnet": build_pspnet,
        "dpt": build_dpt,
        "unet": build_unet,
    }
    network = build[options.network](options, num_classes, in_channels)
    network.siamese = dates == 2
    if options.lock_backbone:
        network.lock_backbone()  # and then there are no activations to do without
    elif options.checkpoint_activations:
        recompute_blocks(network.backbone)
    return network


def network_of(options: Model, data: Data) -> Network:
    """`build_network` for the classes and images of a dataset."""
    return build_network(options, len(data.classes), data.num_bands, data.dates)


def build_deeplabv3plus(options: Model, num_classes: int, in_channels: int) -> Network:
    backbone, channels, sides = build_cnn(options.backbone, options.output_stride, in_channels)
    if options.multi_grid:
        apply_multi_grid(backbone, options.backbone)
    rates, width = options.aspp_rates, options.channels
    return DeepLabV3Plus(backbone, channels, num_classes, rates, width, sides)


def build_pspnet(options: Model, num_classes: int, in_channels: int) -> Network:
    backbone, channels, sides = build_cnn(
        options.backbone, options.output_stride, in_channels, shallow=False
    )
    return PSPNet(backbone, channels[-1], num_classes, sides)


def build_dpt(options: Model, num_classes: int, in_channels: int) -> Network:
    vit: Any = build_vit(options.backbone, options.patch_size, in_channels)
    layers = tapped_blocks(options.backbone, len(vit.feature_info), options.layers)
    if options.lora:
        return AdaptedDPT(vit, num_classes, layers, options.lora)
    return DPT(vit, num_classes, layers)


def build_unet(options: Model, num_classes: int, in_channels: int) -> Network:
    return UNet(in_channels, num_classes, options.widths, options.dropout)
