"""Config -> network: the only place where names become networks."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from model import xception
from model.acceleration import use_layout
from model.checkpoint import (
    load,
    load_backbone_state,
    load_weights,
    network_state,
    read_pretrained,
)
from model.deeplabv3plus import DeepLabV3Plus
from model.dinov2 import as_published, is_dinov2
from model.dpt import DPT
from model.hub import ask_hub_once
from model.network import Network
from model.pspnet import PSPNet
from model.recompute import recompute_blocks
from model.unet import UNet
from util.config.schema import Config, Data, Model
from util.errors import UserError, reason
from util.log import logger

PRETRAINED = Path("pretrained")

# What timm raises for a model that cannot be had in the form asked for.
_UNFIT = (RuntimeError, ValueError, TypeError, AttributeError, AssertionError)


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


def load_network(options: Model, data: Data, path: Path, which: str = "model") -> Network:
    """The network of a config with the weights of a checkpoint, in any published form.

    Parts beside the network's own, which a method has for training alone (CorrMatch's correlation
    head), are left out.  Raises `UserError` when the weights are not those of this network and
    these classes.
    """
    whole = load(path)
    state = network_state(whole, path, which)
    compare_configs(whole, options, data, path)
    network = network_of(options, data)
    parts = dict(network.named_children())
    own = {name: value for name, value in state.items() if name.partition(".")[0] in parts}
    load_weights(network, own or state, path)
    return network.eval()


def load_trained(config: Config, path: Path, which: str, device: torch.device) -> Network:
    """`load_network` of a whole config, on the device and in the layout that it asks for."""
    network = load_network(config.model, config.data, path, which).to(device)
    use_layout(network, config)
    return network


# What the weights of a network do not depend on.
_FREE = {"pretrained", "lock_backbone", "checkpoint_activations", "dropout"}


def compare_configs(state: Any, options: Model, data: Data, path: Path) -> None:
    """Raise `UserError` for a checkpoint of this project whose own config has another network,
    pairs for single images, another number of classes, or the same names in another order; of
    others only their weights tell.

    Other names are warned of alone: they may be the same classes, as another dataset calls them.
    """
    own = state.get("config") if isinstance(state, dict) else None
    if not isinstance(own, dict):
        return
    try:
        before, old, new = own["data"]["classes"], own["model"], options.model_dump(mode="json")
        keys = [key for key in old if key in new and key not in _FREE]
        wrong = [f"model.{k} ({old[k]} -> {new[k]})" for k in keys if old[k] != new[k]]
        was_pairs, is_pairs = own["data"].get("pair") is not None, data.dates == 2
        renamed = [(a, b) for a, b in zip(before, data.classes, strict=False) if a != b]
    except (KeyError, TypeError):
        return  # an odd one: its weights tell
    if was_pairs != is_pairs:
        samples = {True: "pairs", False: "single images"}
        wrong.insert(0, f"data.pair ({samples[was_pairs]} -> {samples[is_pairs]})")
    names = ", ".join(f"{a} -> {b}" for a, b in renamed[:4]) + ", ..." * (len(renamed) > 4)
    if len(before) != len(data.classes):
        wrong.insert(0, f"data.classes ({len(before)} -> {len(data.classes)})")
    elif any(name in before for _, name in renamed):  # a class that it knows, at another's place
        wrong.insert(0, f"data.classes ({names})")
    beside = path.parent / "config.yaml"
    hint = f"; its config lies beside it: --config {beside}" if beside.exists() else ""
    if wrong:
        raise UserError(f"{path}: the config differs from its own in {'; '.join(wrong)}{hint}")
    if renamed:
        logger.warning("%s: was trained with other names of classes (%s)%s", path, names, hint)


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
    return DPT(build_vit(options.backbone, options.patch_size, in_channels), num_classes)


def build_unet(options: Model, num_classes: int, in_channels: int) -> Network:
    return UNet(in_channels, num_classes, options.widths, options.dropout)


def check_name(name: str) -> None:
    """Raise `UserError` unless timm has a model of this name."""
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, [*timm.list_models(), xception.NAME], n=3)
        hint = f"; like it: {', '.join(near)}" if near else ""
        raise UserError(f"model.backbone: timm has no '{name}'{hint}")


def build_vit(name: str, patch_size: int | None, in_channels: int) -> nn.Module:
    """A plain ViT of timm, that is, of blocks of one width, for images of any size."""
    check_name(name)
    try:
        vit: Any = timm.create_model(
            name,
            num_classes=0,
            global_pool="",
            dynamic_img_size=True,
            in_chans=in_channels,
            patch_size=patch_size,  # timm passes on what is not None
        )
        if len({(block["num_chs"], block["reduction"]) for block in vit.feature_info}) != 1:
            raise ValueError("its blocks differ in width or stride")
    except _UNFIT as error:
        raise UserError(
            f"model.backbone: '{name}' is no plain ViT for images of any size ({reason(error)}), "
            "which model.network dpt needs; choose one of timm such as vit_small_patch14_dinov2"
        ) from None
    return as_published(vit) if is_dinov2(name) else vit


def build_cnn(
    name: str, stride: int, in_channels: int, shallow: bool = True
) -> tuple[nn.Module, Sequence[int], int]:
    """A network that returns its features at stride 4 (if `shallow`) and at the output stride,
    their channels, and the number of which an image's sides must be multiples."""
    if name == xception.NAME:
        return xception.Xception65(stride, in_channels), xception.Xception65.channels, 1
    check_name(name)
    try:
        # A look, without memory, that must not change the initial weights.
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            probe = _feature_maps(name, stride).eval()
            sides = _multiple_of_sides(probe)
            strides = _feature_info(probe).reduction()
            indices = ([strides.index(4)] if shallow else []) + [len(strides) - 1]
            idle = _parameters_without_part_in(probe, indices, sides)
        backbone = _feature_maps(name, stride, out_indices=indices, in_chans=in_channels)
    except _UNFIT as error:
        raise UserError(
            f"model.backbone: '{name}' has no feature maps at strides 4 and {stride} "
            f"({reason(error)}); choose a CNN of timm such as resnet50s;"
            " a ViT needs model.network dpt"
        ) from None
    # HRNet's last fusions make maps that no one takes.  What never gets a gradient must not ask for
    # one: processes that average their gradients would wait for it.
    for parameter in idle:
        backbone.get_parameter(parameter).requires_grad_(False)
    return backbone, _feature_info(backbone).channels(), sides


def _feature_maps(name: str, stride: int, **options: Any) -> nn.Module:
    """timm's model at this output stride; a hierarchical one that takes none at its own strides,
    Swin for images of any size.  Raises a `ValueError` where those end in another."""
    ways: list[dict[str, Any]] = [{"output_stride": stride}, {"strict_img_size": False}, {}]
    for way in ways:
        try:
            model = timm.create_model(name, features_only=True, **way, **options)
            break
        except (TypeError, AssertionError):  # HRNet asserts that the stride is its own
            if way == {}:
                raise
    own = _feature_info(model).reduction()[-1]
    if "output_stride" not in way and own != stride:
        raise ValueError(f"it has strides of its own: set model.output_stride to {own}")
    return model


@torch.no_grad()
def _multiple_of_sides(backbone: nn.Module) -> int:
    """Of which number an image's sides must be multiples: 1 (nearly all), 4 (Swin), 32 (HRNet).

    Raises a `ValueError` for a backbone that takes images of one size alone, or of a few.
    """
    for multiple in (1, 4, 32):
        try:
            backbone(torch.zeros(1, 3, 96 + multiple, 64 + multiple))
            return multiple
        except _UNFIT:
            continue
    raise ValueError("it does not take images of any size")


@torch.enable_grad()
def _parameters_without_part_in(
    backbone: nn.Module, indices: Sequence[int], sides: int
) -> list[str]:
    """Names of the parameters that feature maps with these indices do not depend on."""
    maps = backbone(torch.zeros(1, 3, 96 + sides, 64 + sides))
    names, parameters = zip(*backbone.named_parameters(), strict=True)
    taken = [maps[index].sum() for index in indices]
    gradients = torch.autograd.grad(taken, parameters, allow_unused=True)
    return [name for name, gradient in zip(names, gradients, strict=True) if gradient is None]


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


def load_backbone(network: Network, options: Model, in_channels: int) -> str:
    """Load the pretrained backbone that the config asks for; returns one line that says what.

    Raises `UserError` when it cannot be had, or is of another network.
    """
    source = options.pretrained
    name = "U-Net" if options.network == "unet" else options.backbone
    if source == "none":
        return f"{name}: random weights (model.pretrained: none)"
    if name == "U-Net" and source in ("file", "hub"):
        raise UserError(
            f"model.pretrained: found {source}, but there are no published weights for a U-Net's "
            "encoder; set it to none, or to the path of a .pth file"
        )
    if source == "hub":
        state, path = hub_weights(name), f"timm hub, {name}"
    else:
        path = str(PRETRAINED / f"{name}.pth") if source == "file" else source
        state = read_pretrained(Path(path))
    state, remark = inflate_stem(state, in_channels)
    return load_backbone_state(network.backbone, state, path) + remark


def hub_weights(name: str) -> Mapping[str, Tensor]:
    """timm's weights of a model; raises `UserError` when they cannot be had."""
    ask_hub_once()
    try:
        donor: Any = timm.create_model(name, pretrained=True)
    except Exception as error:  # whatever the network, the hub or its client raises
        raise UserError(
            f"model.pretrained: hub weights of '{name}' cannot be had ({reason(error)}); "
            f"put them into {PRETRAINED / name}.pth and set model.pretrained to file"
        ) from None
    return (as_published(donor) if is_dinov2(name) else donor).state_dict()


def inflate_stem(state: Mapping[str, Tensor], in_channels: int) -> tuple[Mapping[str, Tensor], str]:
    """Weights for RGB as those for `in_channels` bands, and a remark where they were changed.

    As timm does it: a single band sees the sum of the first convolution's three, more bands
    repeat them in turn, scaled by 3 / `in_channels`.
    """
    stems = [k for k, v in state.items() if v.ndim == 4 and v.shape[1] == 3]
    if in_channels == 3 or not stems:
        return state, ""
    how = "summed to 1 band" if in_channels == 1 else f"repeated to {in_channels} bands"
    inflated = adapt_input_conv(in_channels, state[stems[0]])
    return {**state, stems[0]: inflated}, f"; {stems[0]} of 3 bands {how}"
