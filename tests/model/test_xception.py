"""Xception-65 equals timm's implementation."""

from functools import partial

import pytest
import timm
import torch
from torch import nn

from model.build import CNNS_NOT_IN_TIMM, build_vit
from model.xception import Block, Xception65
from tests.golden import fill
from tools.weights.convert import expected_backbone
from util.errors import UserError


def timm_state(ours):
    """Return the state of our network under timm's names."""
    parts = {"depthwise": "conv_dw", "pointwise": "conv_pw", "bn1": "bn_dw", "bn2": "bn_pw"}
    stem = {"conv1": "stem.0.conv", "bn1": "stem.0.bn", "conv2": "stem.1.conv", "bn2": "stem.1.bn"}
    renamed = {}
    for name, value in ours.items():
        first, *rest, last = name.split(".")
        if first.startswith("block"):
            block = f"blocks.{int(first[5:]) - 1}"
            if rest[0].startswith("sepconv"):
                new = f"{block}.stack.conv{rest[0][-1]}.{parts[rest[1]]}"
            else:
                new = f"{block}.shortcut.{ {'skip': 'conv', 'skipbn': 'bn'}[rest[0]] }"
        elif rest:
            new = f"blocks.20.stack.conv{int(first[4:]) - 2}.{parts[rest[0]]}"
        else:
            new = stem[first]
        renamed[f"{new}.{last}"] = value
    return renamed


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_equals_timm(stride):
    ours = Xception65(stride, 3).eval()
    fill(ours)
    reference = timm.create_model(
        "xception65", num_classes=0, output_stride=stride, norm_layer=partial(nn.BatchNorm2d)
    ).eval()
    reference.load_state_dict(timm_state(ours.state_dict()))
    tapped = []
    reference.blocks[1].stack.conv2.register_forward_hook(lambda *args: tapped.append(args[-1]))
    reference.blocks[1].stack.act3.inplace = False
    for block in reference.blocks[:-1]:
        if block.shortcut is None:
            block.stack.act1.inplace = True  # the published network changes its skips in place
    for module in reference.blocks[20].modules():
        if isinstance(module, nn.Conv2d) and module.dilation > (1, 1):
            # timm also dilates for the last stride
            module.dilation = module.padding = (16 // stride, 16 // stride)
    x = torch.randn(2, 3, 65, 81, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        low, high = ours(x)
        expected = reference.forward_features(x)
    torch.testing.assert_close(low, tapped[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(high, expected, rtol=1e-4, atol=1e-5)
    assert low.shape[-1] == 21 and high.shape[-1] == -(-81 // stride)


def test_published_momentum():
    norms = [m for m in Xception65(16, 3).modules() if isinstance(m, nn.BatchNorm2d)]
    assert {m.momentum for m in norms} == {0.0003}


def test_a_block_leaves_its_input_alone():
    x = torch.randn(2, 8, 5, 5)
    before = x.clone()
    Block(8, 8, 8, 1)(x)
    assert torch.equal(x, before)


def test_every_own_cnn_is_known_wherever_backbones_are_named(monkeypatch):
    monkeypatch.setitem(CNNS_NOT_IN_TIMM, "mine", Xception65)
    assert isinstance(expected_backbone("mine"), Xception65)
    with pytest.raises(UserError, match="'mine' is no plain ViT"):
        build_vit("mine", None, 3)
