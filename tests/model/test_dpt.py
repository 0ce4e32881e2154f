"""DPT on ViTs, and UniMatch V2's AdamW and complementary dropout."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from engine.optimizer import build_optimizer, load_optimizer
from model.acceleration import compile_parts
from model.build import build_network
from model.dinov2 import resample_positions
from model.pretrained import load_backbone, load_backbone_state
from semi.perturbation import complementary_dropout, draw_complementary
from util.config.loading import load_config
from util.config.schema import Model, Optimizer
from util.errors import UserError

TINY = Model(network="dpt", backbone="test_vit", channels=8, pretrained="none")
KEYS = Path(__file__).parents[1] / "golden_data/dpt_dinov2s_keys.json"


def vary(options, **more):
    return options.model_copy(update=more)


@torch.no_grad()
@pytest.mark.parametrize(
    "name",
    [
        "test_vit",
        "test_vit2",
        "vit_small_patch16_dinov3",  # registers, rotary positions
        "vit_small_patch16_rope_mixed_224",  # learnt rotary frequencies
        "vit_base_patch16_rope_reg1_gap_256",  # a register, no class token
    ],
)
def test_features_are_the_normalised_patch_tokens(name):
    size, network = (48, 80), build_network(vary(TINY, backbone=name), 5).eval()
    x = torch.randn(2, 3, *size)
    features = network.features(x)
    grid = (size[0] // 16, size[1] // 16)
    assert [f.shape for f in features] == [(2, w, *grid) for w in network.feature_channels]
    tokens = network.backbone.forward_features(x)[:, -grid[0] * grid[1] :]  # after all others
    torch.testing.assert_close(features[-1].flatten(2).transpose(1, 2), tokens)
    assert network(x).shape == (2, 5, *size)


@pytest.mark.parametrize(
    "letter, classes, millions, blocks, widths, fusion",
    [
        ("small", 21, 24.8, [3, 6, 9, 12], [48, 96, 192, 384], 64),
        ("base", 19, 97.5, [3, 6, 9, 12], [96, 192, 384, 768], 128),
        ("large", 21, None, [5, 12, 18, 24], [256, 512, 1024, 1024], 256),
        ("giant", 21, None, [10, 20, 30, 40], [1536] * 4, 384),
    ],
)
def test_published_sizes(letter, classes, millions, blocks, widths, fusion):
    with torch.device("meta"):
        options = vary(TINY, backbone=f"vit_{letter}_patch14_dinov2")
        network = build_network(options, classes).eval()
        assert network(torch.zeros(1, 3, 70, 98)).shape == (1, classes, 70, 98)
    parameters = sum(p.numel() for p in network.parameters())
    assert millions is None or round(parameters / 1e6, 1) == millions
    assert [tap + 1 for tap in network.taps] == blocks
    assert [project.out_channels for project in network.head.projects] == widths
    assert network.head.scratch.layer1_rn.out_channels == fusion
    untrained = [name for name, p in network.backbone.named_parameters() if not p.requires_grad]
    assert untrained == ["mask_token"], "which no loss reaches"
    gated = "backbone.blocks.0.mlp.w12.weight" in network.state_dict()
    assert gated == (letter == "giant")


@pytest.mark.parametrize(
    "backbone, asked, blocks",
    [
        ("vit_large_patch14_dinov2", None, [5, 12, 18, 24]),
        ("vit_large_patch14_reg4_dinov2", None, [5, 12, 18, 24]),
        ("vit_large_patch16_dinov3", None, [5, 12, 18, 24]),
        ("vit_large_patch16_224", None, [6, 12, 18, 24]),
        ("vit_small_patch16_dinov3", None, [3, 6, 9, 12]),
        ("test_vit", None, [1, 3, 4, 6]),
        ("vit_small_patch16_dinov3", (9, 10, 11, 12), [9, 10, 11, 12]),
    ],
)
def test_blocks_that_are_decoded(backbone, asked, blocks):
    with torch.device("meta"):
        network = build_network(vary(TINY, backbone=backbone, layers=asked), 3)
    assert [tap + 1 for tap in network.taps] == blocks


@torch.no_grad()
def test_layers_are_those_blocks():
    """The first map is the first block's output after the final norm."""
    network = build_network(vary(TINY, layers=(1, 2, 4, 6)), 3).eval()
    vit, x, seen = network.backbone, torch.randn(1, 3, 32, 48), {}
    for number in (1, 2, 4, 6):
        block = vit.blocks[number - 1]
        block.register_forward_hook(lambda _m, _i, out, n=number: seen.__setitem__(n, out))
    for feature, tokens in zip(network.features(x), seen.values(), strict=True):
        patches = vit.norm(tokens)[:, 1:]
        torch.testing.assert_close(feature.flatten(2).transpose(1, 2), patches)


@pytest.mark.parametrize("lora", [0, 2])
def test_blocks_after_the_last_decoded_one_are_not_trained(lora):
    """Other processes would wait for their gradients."""
    if lora:
        pytest.importorskip("peft")
    network = build_network(vary(TINY, layers=(1, 2, 3, 4), lora=lora), 3)
    ran = []
    network.backbone.blocks[4].register_forward_hook(lambda *_: ran.append(4))
    network(torch.randn(1, 3, 32, 32)).sum().backward()
    trained = {n for n, p in network.named_parameters() if p.requires_grad}
    assert trained == {n for n, p in network.named_parameters() if p.grad is not None}
    assert not ran and any(name.startswith("backbone.blocks.3.") for name in trained)


def test_layers_that_a_vit_lacks(toy):
    with pytest.raises(UserError, match="model.layers: found block 7, but test_vit has 6"):
        build_network(vary(TINY, layers=(1, 2, 3, 7)), 3)
    for unfit in ("[3,2,1,4]", "[1,1,2,3]", "[0,1,2,3]", "[1,2,3]", "[1,2,3,4,5]"):
        with pytest.raises(UserError, match="model.layers"):
            load_config(toy.config, [f"model.layers={unfit}"])


def test_rotary_positions_follow_the_definition():
    """DINOv3 (Simeoni et al., 2025): coordinates in [-1, 1], periods 100^(2i/d), angles 2 pi x / p
    that rotate pairs (i, i + d/2) of a head's query, for the two axes in turn."""
    with torch.no_grad():
        network = build_network(vary(TINY, backbone="vit_small_patch16_dinov3"), 3)
    rows, columns, width = 3, 5, 64
    found = network.backbone.rope.get_embed((rows, columns))
    sine, cosine = found.double().chunk(2, -1)
    periods = 100.0 ** (np.arange(width // 4) * 4 / width)
    for index, (row, column) in enumerate(np.ndindex(rows, columns)):
        place = np.array([2 * (row + 0.5) / rows - 1, 2 * (column + 0.5) / columns - 1])
        angles = np.tile((2 * np.pi * place[:, None] / periods).ravel(), 2)
        np.testing.assert_allclose(sine[index], np.sin(angles), atol=1e-5)
        np.testing.assert_allclose(cosine[index], np.cos(angles), atol=1e-5)


def bicubic_weights(size, side):
    """`[size, side]`: each row interpolates one output from the inputs, borders repeated."""

    def kernel(d, a=-0.75):  # Keys (1981)
        d = abs(d)
        if d <= 1:
            return (a + 2) * d**3 - (a + 3) * d**2 + 1
        return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0

    weights = np.zeros((size, side))
    for i in range(size):
        at = (i + 0.5) / ((size + 0.1) / side) - 0.5
        for j in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            weights[i, min(max(j, 0), side - 1)] += kernel(at - j)
    return weights


@pytest.mark.parametrize("rows, columns", [(5, 7), (36, 37), (57, 40), (1, 1)])
def test_positions_are_resampled_by_scale_factors(rows, columns):
    table = torch.randn(1, 1 + 37 * 37, 6)
    assert resample_positions(table, 37, 37) is table
    grid = table[0, 1:].view(37, 37, 6).double().numpy()
    expected = np.einsum(
        "rj,ck,jkd->rcd", bicubic_weights(rows, 37), bicubic_weights(columns, 37), grid
    )
    found = resample_positions(table, rows, columns)
    assert torch.equal(found[:, 0], table[:, 0])
    np.testing.assert_allclose(found[0, 1:].view(rows, columns, 6), expected, atol=1e-4)


def test_blocks_are_compiled_once_for_all(monkeypatch):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph.code)
        return graph.forward

    compile_with = functools.partialmethod(torch.nn.Module.compile, backend=backend)
    monkeypatch.setattr(torch.nn.Module, "compile", compile_with)
    network, x = build_network(TINY, 3).eval(), torch.randn(1, 3, 32, 32)
    before = network(x)
    compile_parts(torch.nn.ModuleDict({"model": network}))
    torch.testing.assert_close(network(x), before)
    assert sum("scaled_dot_product_attention" in code for code in graphs) == 1


def test_pretrained_weights_are_the_original_ones(monkeypatch):
    options = Model(network="dpt", backbone="vit_small_patch14_dinov2", pretrained="hub")
    network = build_network(options, 3)
    shapes = json.loads(KEYS.read_text())
    original = {
        k.removeprefix("backbone."): torch.full(shape, 0.5)
        for k, shape in shapes.items() if k.startswith("backbone.")
    }  # fmt: skip
    assert load_backbone_state(network.backbone, original, "f") == "f: 175 entries loaded"
    assert (network.backbone.mask_token == 0.5).all()
    averaged = {name.replace("norm.", "fc_norm.") if name.startswith("norm.") else name: value
                for name, value in original.items()}  # fmt: skip
    assert load_backbone_state(network.backbone, averaged, "f") == "f: 175 entries loaded"
    donor = timm.create_model(options.backbone)
    monkeypatch.setattr("timm.create_model", lambda name, pretrained: donor)
    assert load_backbone(network, options, 3).endswith("175 entries loaded")
    assert torch.equal(network.backbone.pos_embed, donor.pos_embed)


@pytest.mark.parametrize(
    "crop, advice", [(100, "use 96 or 112"), (7, "use 16$"), (96, None), (16, None)]
)
def test_a_crop_is_a_multiple_of_the_patch(crop, advice):
    network = build_network(TINY, 3)
    if advice is None:
        network.check_crop(crop)
    else:
        with pytest.raises(UserError, match=f"crop_size: found {crop}.*16 pixels. Fix: {advice}"):
            network.check_crop(crop)


@pytest.mark.parametrize("network, backbone", [("dpt", "resnet10t"), ("deeplabv3plus", "test_vit")])
def test_a_backbone_of_the_other_network(network, backbone):
    with pytest.raises(UserError, match=f"model.backbone: '{backbone}'.*dpt"):
        build_network(vary(TINY, network=network, backbone=backbone), 3)


def test_adamw_takes_up_its_own_state():
    optimizers = []
    for _ in range(2):
        network = build_network(TINY, 3)
        optimizers.append(build_optimizer(network, Optimizer(name="adamw")))
        network(torch.randn(1, 3, 32, 32)).square().mean().backward()
        optimizers[-1].step()
    kept = optimizers[0].state_dict()
    load_optimizer(optimizers[1], kept, Path("latest.pth"))
    for index, entry in optimizers[1].state_dict()["state"].items():
        assert entry["step"] == 1 and torch.equal(entry["exp_avg"], kept["state"][index]["exp_avg"])


def test_patches_have_the_size_of_the_config():
    network = build_network(vary(TINY, patch_size=8), 3)
    assert network.size_multiple == 8
    assert network.backbone.patch_embed.proj.kernel_size == (8, 8)


@pytest.mark.parametrize("images", [1, 2, 3])
def test_half_of_the_images_keep_all_channels_on_average(images):
    """Also in forward passes of one image."""
    features = [torch.zeros(2 * images, 16, 1, 1)]
    whole = [(draw_complementary(features)[0] == 1).all(1).float().mean() for _ in range(300)]
    assert abs(sum(whole) / 300 - 0.5) < 0.1


def test_complementary_dropout_is_one_draw_per_image_and_channel():
    features = [torch.ones(10, 400, 3, 3), torch.ones(10, 400, 2, 2), torch.ones(10, 300, 2, 2)]
    factors = draw_complementary(features)
    assert factors[0] is factors[1] and factors[2].shape == (5, 300)
    for factor in factors:
        whole = (factor == 1).all(1)
        assert whole.sum() in (2, 3) and set(factor[~whole].unique().tolist()) == {0.0, 2.0}
        assert abs((factor[~whole] == 0).float().mean() - 0.5) < 0.1
    assert torch.equal((factors[0] == 1).all(1), (factors[2] == 1).all(1))
    for f, factor in zip(complementary_dropout(features, factors), factors, strict=True):
        first, second = f.chunk(2)
        assert torch.equal(first, factor[:, :, None, None].expand_as(first))
        assert torch.equal(first + second, torch.full_like(first, 2.0))
