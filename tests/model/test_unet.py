"""U-Net: sizes, depths, widths, bands, and errors."""

import pytest
import timm
import torch

from model.build import build_network
from model.pretrained import inflate_stem, load_backbone
from tests.golden import fill
from util.config.loading import parse
from util.config.schema import Config, Model
from util.errors import UserError

SMALL = Model(network="unet", widths=(4, 6, 8), dropout=(0, 0, 0), pretrained="none")


def vary(options, **more):
    return options.model_copy(update=more)


@pytest.mark.parametrize("size", [(64, 64), (33, 50), (7, 1), (1, 1)])
@torch.no_grad()
def test_logits_have_the_size_of_the_image(size):
    network = build_network(SMALL, 4, in_channels=1).eval()
    features = network.features(torch.randn(2, 1, *size))
    assert [f.shape[1] for f in features] == [4, 6, 8] == list(network.feature_channels)
    assert features[-1].shape[-2:] == tuple(-(-side // 4) for side in size)
    assert network(torch.randn(2, 1, *size)).shape == (2, 4, *size)


def test_published_network():
    network = build_network(Model(network="unet"), 4, in_channels=1)
    assert sum(p.numel() for p in network.parameters()) == 1_813_764
    dropout = [m.p for m in network.encoder.modules() if isinstance(m, torch.nn.Dropout)]
    assert dropout == [0.05, 0.1, 0.2, 0.3, 0.5]
    assert not any(m.p for m in network.decoder.modules() if isinstance(m, torch.nn.Dropout))


def test_every_level_is_seen_by_the_decoder():
    network = build_network(SMALL, 4, in_channels=1).eval()
    features = network.features(torch.randn(1, 1, 16, 16))
    whole = network.decode(features, (16, 16))
    for level in range(3):
        without = [f * (i != level) for i, f in enumerate(features)]
        assert not torch.allclose(network.decode(without, (16, 16)), whole)


def test_unfit_settings_are_refused(toy):
    network = build_network(Model(network="unet"), 4)
    network.check_crop(32)
    with pytest.raises(UserError, match="crop_size: found 31.*5 levels.*use 32"):
        network.check_crop(31)
    tree = {**toy.tree, "model": {"network": "unet", "widths": [8, 16]}}
    with pytest.raises(UserError, match="dropout has 5 numbers for the 2 levels"):
        parse(Config, tree, "config")
    for source in ("file", "hub"):  # there are no published encoders
        with pytest.raises(UserError, match="set it to none"):
            load_backbone(network, vary(SMALL, pretrained=source), 3)


def test_pretrained_unet_encoder(tmp_path):
    donor = build_network(SMALL, 2, in_channels=1)
    fill(donor)
    torch.save(donor.encoder.state_dict(), tmp_path / "own.pth")
    network = build_network(SMALL, 4, in_channels=1)
    load_backbone(network, vary(SMALL, pretrained=str(tmp_path / "own.pth")), in_channels=1)
    for name, value in donor.encoder.state_dict().items():
        assert torch.equal(network.encoder.state_dict()[name], value)


@pytest.mark.parametrize("bands", [1, 2, 3, 5])
def test_pretrained_stems_are_inflated_as_timm_does(bands, tmp_path):
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "rgb.pth")
    file = str(tmp_path / "rgb.pth")
    options = Model(backbone="resnet10t", channels=8, pretrained=file)
    network = build_network(options, 3, in_channels=bands)
    message = load_backbone(network, options, bands)
    assert ("channel" in message.split("loaded")[1]) == (bands != 3)
    expected = timm.create_model(
        "resnet10t", pretrained=True, pretrained_cfg_overlay={"file": file}, in_chans=bands
    )
    stem = network.backbone.get_submodule("conv1.0").weight
    assert torch.equal(stem, expected.get_submodule("conv1.0").weight)


def test_a_stem_is_known_by_its_three_bands_not_by_its_size():
    state = {"conv1.weight": torch.randn(4, 3, 7, 7), "conv2.weight": torch.randn(4, 4, 3, 3)}
    assert inflate_stem(state, 3) == (state, "")
    inflated, message = inflate_stem(state, 6)
    assert (
        inflated["conv1.weight"].shape == (4, 6, 7, 7) and "conv1.weight of 3 channels" in message
    )
    assert inflated["conv2.weight"] is state["conv2.weight"]


@pytest.mark.parametrize("bands", [1, 4])
@pytest.mark.parametrize(
    "model",
    [
        {"backbone": "test_resnet", "channels": 8},
        {"backbone": "xception65_deeplab", "channels": 8},
        {"network": "dpt", "backbone": "test_vit"},
        {"network": "dpt", "backbone": "vit_small_patch14_dinov2"},
        {"network": "unet"},
    ],
    ids=str,
)
def test_every_network_takes_any_number_of_bands(model, bands):
    with torch.device("meta"):
        network = build_network(Model(**model, pretrained="none"), 3, in_channels=bands).eval()
        assert network(torch.zeros(1, bands, 112, 112)).shape == (1, 3, 112, 112)
