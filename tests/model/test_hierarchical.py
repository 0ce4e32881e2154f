"""DeepLabv3+ on hierarchical backbones that take no output stride: Swin, PVTv2, HRNet, MambaOut."""

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models import register_model

from inference.predictor import logits_of
from model.build import build_network
from model.pspnet import PyramidPooling
from util.config.schema import Model
from util.errors import UserError

TINY = Model(backbone="test_mambaout", output_stride=32, channels=8, pretrained="none")
SMALL = {"depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}


@register_model
def tiny_swin(pretrained=False, **more):
    return timm.create_model("swin_tiny_patch4_window7_224", embed_dim=12, **SMALL, **more)


@register_model
def tiny_pvt(pretrained=False, **more):
    widths = {"embed_dims": (8, 12, 16, 24)}
    return timm.create_model("pvt_v2_b0", **widths, **SMALL, **more)


def of(backbone, **more):
    return TINY.model_copy(update={"backbone": backbone, **more})


@torch.no_grad()
@pytest.mark.parametrize("name, stride, least", [
    ("test_convnext", 32, 32), ("test_convnext", 16, 16), ("tiny_pvt", 32, None),
    ("resnet10t", 16, 1), ("test_mambaout", 32, 1), ("inception_v4", 32, 96),
])  # fmt: skip
def test_narrow_images_are_enlarged_for_backbones_without_padding(name, stride, least):
    """As the last windows and small scales of an evaluation may be."""
    network = build_network(of(name, output_stride=stride), 5).eval()
    assert network.min_side == least or (least is None and network.min_side > 1)
    for size in ((40, 3), (1, 33), (70, 50)):
        x = torch.randn(1, 3, *size)
        logits = logits_of(network, x)
        assert logits.shape == (1, 5, *size) and logits.isfinite().all()
        if min(size) >= network.min_side:
            torch.testing.assert_close(logits, network(x))


@torch.no_grad()
@pytest.mark.parametrize("name, sides", [("tiny_swin", 4), ("tiny_pvt", 1), ("test_mambaout", 1)])
def test_features_are_timms_with_the_channels_first(name, sides):
    network = build_network(of(name), 5).eval()
    x = torch.randn(2, 3, 68, 100)
    shallow, deep = network.features(x)
    assert network.size_multiple == sides
    assert shallow.shape == (2, network.feature_channels[0], 17, 25)
    assert deep.shape == (2, network.feature_channels[1], 3, 4)
    first = network.backbone(x)[0]
    assert torch.equal(shallow, first if name == "tiny_pvt" else first.permute(0, 3, 1, 2))
    assert logits_of(network, torch.randn(1, 3, 39, 50)).shape == (1, 5, 39, 50)


FAMILIES = {
    "swin_tiny_patch4_window7_224": 4,
    "swinv2_tiny_window8_256": 4,
    "pvt_v2_b2": 1,
    "hrnet_w18": 32,
    "mambaout_tiny": 1,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_whole_families_at_their_own_strides(name):
    with torch.device("meta"):
        network = build_network(of(name), 5).eval()
        assert network.size_multiple == FAMILIES[name]
        shallow, deep = network.features(torch.zeros(1, 3, 96, 64))
        assert shallow.shape[-2:] == (24, 16) and deep.shape[-2:] == (3, 2)
        assert [shallow.shape[1], deep.shape[1]] == list(network.feature_channels)
        assert network(torch.zeros(1, 3, 96, 64)).shape == (1, 5, 96, 64)
    with pytest.raises(UserError, match=f"'{name}' has no.*set model.output_stride to 32"):
        build_network(of(name, output_stride=16), 5)


@pytest.mark.parametrize("network", ["deeplabv3plus", "pspnet"])
@pytest.mark.parametrize("name", ["tiny_swin", "hrnet_w18_small"])
def test_what_is_trained_gets_gradients(name, network):
    built = build_network(of(name, network=network), 5)
    built(torch.randn(2, 3, 64, 64)).sum().backward()
    trained = {n for n, p in built.named_parameters() if p.requires_grad}
    assert trained == {n for n, p in built.named_parameters() if p.grad is not None}
    assert (len(trained) < len(list(built.parameters()))) == (name == "hrnet_w18_small")


def test_a_backbone_of_one_size_is_refused():
    with pytest.raises(UserError, match="hiera_tiny_224.*does not take images of any size"):
        build_network(of("hiera_tiny_224"), 5)


@pytest.mark.parametrize(
    "name, crop, advice",
    [
        ("tiny_swin", 67, "multiples of 4 pixels. Fix: use 64 or 68"),
        ("tiny_swin", 32, "one 32-pixel cell. Fix: use 36"),
        ("hrnet_w18_small", 65, "multiples of 32 pixels. Fix: use 64 or 96"),
        ("hrnet_w18_small", 32, "one 32-pixel cell. Fix: use 64"),
        ("test_mambaout", 32, "one 32-pixel cell. Fix: use 33"),
    ],
)
def test_crop_sizes(name, crop, advice):
    with torch.device("meta"):
        network = build_network(of(name), 5)
    with pytest.raises(UserError, match=f"crop_size: found {crop}.*{advice}"):
        network.check_crop(crop)
    network.check_crop(64)


@torch.no_grad()
def test_pyramid_pooling_takes_means_of_1_2_3_and_6_cells_a_side():
    pooling, x = PyramidPooling(8).eval(), torch.randn(2, 8, 12, 18)
    found = pooling(x)
    assert torch.equal(found[:, :8], x) and found.shape == (2, 16, 12, 18)
    for level, cells in enumerate((1, 2, 3, 6)):
        means = x.unfold(2, 12 // cells, 12 // cells).unfold(3, 18 // cells, 18 // cells)
        own = getattr(pooling, f"conv{level + 1}")(means.mean((-2, -1)))
        own = F.interpolate(own, (12, 18), mode="bilinear", align_corners=True)
        torch.testing.assert_close(found[:, 8 + 2 * level :][:, :2], own)
