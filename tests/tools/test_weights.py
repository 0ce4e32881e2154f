"""Pretrained weights: conversion of the files of several projects."""

import io
import os
import re
import urllib.request
from functools import partial
from pathlib import Path
from urllib.error import URLError

import pytest
import timm
import torch

from model.build import build_network
from model.checkpoint import load
from model.pretrained import load_backbone
from tests.conftest import REPOSITORY
from tools.weights import __main__ as weights
from tools.weights import files
from tools.weights.convert import EXPECTED, convert, expected_backbone, unwrap
from tools.weights.files import _megabytes as megabytes
from tools.weights.published import SOURCES, known_backbones, sources_of
from util.config.schema import Model
from util.errors import UserError

FILE = "shared/data/weights/tf_efficientnet_lite0.pth"
LITE0 = Path(os.environ.get("EFFICIENTNET_LITE0", REPOSITORY.parent / FILE))


def shapes(name):
    """State dict of a backbone as timm names it, without memory for its values."""
    with torch.device("meta"):
        return timm.create_model(name).state_dict()


def renamed(state, *pairs):
    """Replace texts in all names; a pair that starts with ^ replaces beginnings alone."""
    result = {}
    for name, value in state.items():
        for old, new in pairs:
            if not old.startswith("^"):
                name = name.replace(old, new)
            elif name.startswith(old[1:]):
                name = new + name[len(old) - 1 :]
        result[name] = value
    return result


@pytest.fixture
def tool(run, monkeypatch, tmp_path):
    """Run `python -m tools.weights` in an empty folder.

    One backbone is known, and none is measured: building all takes long.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "known_backbones", lambda: ["resnet50s"])
    monkeypatch.setattr(files, "_megabytes", lambda name: 1)
    return partial(run, weights)


MM_VIT = [("^norm.", "ln1."), ("^blocks.", "layers."), (".norm1.", ".ln1."), (".norm2.", ".ln2."),
          ("patch_embed.proj.", "patch_embed.projection."), ("mlp.fc1.", "ffn.layers.0.0."),
          ("mlp.fc2.", "ffn.layers.1.")]  # fmt: skip
MM_DINOV2 = [*MM_VIT, ("ls1.gamma", "attn.gamma1.weight"), ("ls2.gamma", "ffn.gamma2.weight")]
MM_SEG = [*MM_VIT, ("attn.proj.", "attn.attn.out_proj."), ("attn.qkv.", "attn.attn.in_proj_")]
MM_RESNET = [("^conv1.", "stem."), ("^bn1.", "stem.7.")]
SEGMENTRON = [(".skipbn.", ".bn."), (".skip.", ".conv."), ("sepconv", "sep_conv"),
              ("^conv3.", "block21.sep_conv1."), ("^conv4.", "block21.sep_conv2."),
              ("^conv5.", "block21.sep_conv3.")]  # fmt: skip
SCHEMES = [
    # backbone, its name in timm (None: not in timm), changes to entry names, scheme
    ("resnet50s", "resnet50s", [], "as expected"),
    ("resnet10t", "resnet10t", MM_RESNET, "OpenMMLab"),
    ("test_vit", "test_vit", MM_VIT, "OpenMMLab"),
    ("test_vit", "test_vit", MM_SEG, "OpenMMLab"),
    ("vit_small_patch14_dinov2", None, [], "as expected"),
    ("vit_small_patch14_dinov2", None, MM_DINOV2, "OpenMMLab"),
    ("vit_small_patch14_dinov2", "vit_small_patch14_dinov2", [], "timm's DINOv2"),
    ("vit_giant_patch14_dinov2", "vit_giant_patch14_dinov2", [], "timm's DINOv2"),
    ("xception65_deeplab", "xception65", [], "by order"),
    ("xception65_deeplab", None, SEGMENTRON, "by order"),
    ("tf_efficientnet_lite0", "tf_efficientnet_lite0", [("conv", "c"), ("bn", "n")], "by order"),
]


@pytest.mark.parametrize("name, timms, changes, scheme", SCHEMES)
def test_naming_schemes(name, timms, changes, scheme):
    own = expected_backbone(name).state_dict()
    state = shapes(timms) if timms else own
    found = convert(renamed(state, *changes), name, "file")
    assert scheme in found.scheme and (found.scheme == EXPECTED) == (scheme == "as expected")
    unread = {"mask_token"} if "dinov2" in name else set()
    unread |= {k for k in own if re.search(r"num_batches_tracked$|classifier|fc\.", k)}
    assert not {*own} - {*found.state} - unread
    if not (timms or "").startswith(("xception", "vit_")):
        assert all(value is state[key] for key, value in found.state.items())


def test_official_dinov2_with_registers():
    """Add the position to the class token: timm's table has no entry for it."""
    state = renamed(shapes("vit_small_patch14_reg4_dinov2"), ("reg_token", "register_tokens"))
    state |= {"mask_token": torch.zeros(1, 384), "cls_token": torch.full((1, 1, 384), 2.0),
              "pos_embed": torch.ones(1, 1370, 384)}  # fmt: skip
    found = convert(state, "vit_small_patch14_reg4_dinov2", "f")
    assert found.state["cls_token"].eq(3).all()
    assert found.state["pos_embed"].shape == (1, 1369, 384)
    assert found.state["reg_token"] is state["register_tokens"]


def official_dinov3(bias):
    """Return a DINOv3 state dict with the names of the official files."""
    changes = [("reg_token", "storage_tokens"), ("gamma_1", "ls1.gamma"), ("gamma_2", "ls2.gamma")]
    state = renamed(shapes("vit_small_patch16_dinov3"), *changes)
    state["mask_token"] = torch.zeros(1, 384)
    state["rope_embed.periods"] = torch.ones(16)
    for block in range(12):
        state[f"blocks.{block}.attn.qkv.bias"] = torch.full((1152,), bias)
        state[f"blocks.{block}.attn.qkv.bias_mask"] = torch.ones(1152)
    return state


def test_official_dinov3():
    name, state = "vit_small_patch16_dinov3", official_dinov3(0.0)
    found = convert(state, name, "f")
    assert "by timm" in found.scheme
    assert found.state["reg_token"] is state["storage_tokens"]
    assert found.state["blocks.7.gamma_2"] is state["blocks.7.ls2.gamma"]
    with pytest.raises(UserError, match=f"qkv.bias: has biases.*{name}_qkvb"):
        convert(official_dinov3(0.5), name, "f")
    kept = convert(official_dinov3(0.5), f"{name}_qkvb", "f")
    assert kept.state["blocks.3.attn.v_bias"].eq(0.5).all()


@pytest.mark.skipif(not LITE0.exists(), reason="needs a published file, see EFFICIENTNET_LITE0")
def test_a_published_file_without_its_names(tool):
    state, is_plain = unwrap(load(LITE0), LITE0)
    found = convert(state, "tf_efficientnet_lite0", LITE0)
    assert is_plain and found.scheme == EXPECTED
    assert found.unused == ["classifier.weight", "classifier.bias"]
    blind = {
        f"{i}.{name.rpartition('.')[2]}": value for i, (name, value) in enumerate(state.items())
    }
    ordered = convert(blind, "tf_efficientnet_lite0", LITE0)
    assert "by order" in ordered.scheme and len(ordered.unused) == 2
    assert all(value is state[key] for key, value in ordered.state.items())
    assert "model.backbone=tf_efficientnet_lite0: 245 entries" in tool("check", LITE0).output()


def swap(items):
    """Exchange the names of weights and biases of batch norms."""
    names = {"weight": "bias", "bias": "weight"}
    kinds = [key.rpartition(".") for key, _ in items]
    return [
        (f"{number}.{names.get(kind, kind) if value.ndim == 1 else kind}", value)
        for (number, _, kind), (_, value) in zip(kinds, items, strict=True)
    ]


@pytest.mark.parametrize(
    "change, problem",
    [
        (lambda items: items[:-3], "found 72 entries, expected 75"),
        (
            lambda items: items[1:2] + items[:1] + items[2:],
            "found 1.weight .16., expected conv1.0.weight",
        ),
        (lambda items: [*items, ("x", torch.zeros(3))], "found 76 entries, expected 75"),
        (swap, "found 1.bias .16., expected conv1.1.weight"),
    ],
)
def test_an_order_that_differs_is_refused(change, problem):
    state = timm.create_model("test_resnet", num_classes=0).state_dict()
    learnt = [(k, v) for k, v in state.items() if not k.endswith("num_batches_tracked")]
    blind = [(f"{i}.{k.rpartition('.')[2]}", v) for i, (k, v) in enumerate(learnt)]
    assert "by order" in convert(dict(blind), "test_resnet", "f").scheme
    words = f"f: not the weights of test_resnet: .*same order: {problem}"
    with pytest.raises(UserError, match=words):
        convert(dict(change(blind)), "test_resnet", "f")


def test_the_best_teacher_is_fetched(tool):
    networks = {name: timm.create_model("resnet10t") for name in ("model", "model_ema")}
    state = {
        f"{name}.backbone.{key}": value
        for name, network in networks.items()
        for key, value in network.state_dict().items()
    }
    for file, name in (("best.pth", "model"), ("best_model_ema.pth", "model_ema")):
        torch.save({"method": state}, file)
        out = tool("fetch", "resnet10t", "--from", file, "--folder", name).output()
        weights = torch.load(f"{name}/resnet10t.pth", weights_only=True)
        assert torch.equal(weights["conv1.0.weight"], networks[name].conv1[0].weight), out


def test_fetch_from_a_file_makes_what_training_reads(tool, monkeypatch):
    donor = timm.create_model("resnet10t")
    file = {"backbone." + k: v for k, v in renamed(donor.state_dict(), *MM_RESNET).items()}
    torch.save({"meta": {"epoch": 1}, "state_dict": file | {"head.x": torch.ones(2)}}, "mm.pth")
    code, out, err = tool("check", "mm.pth")
    assert code == 1 and "not the weights of resnet50s" in out and "--backbone" in out, err
    code, out, err = tool("check", "mm.pth", "--backbone", "resnet10t")
    assert code == 1 and "fetch resnet10t --from mm.pth" in out, err
    assert "names of OpenMMLab" in tool("fetch", "resnet10t", "--from", "mm.pth").output()
    options = Model(backbone="resnet10t")
    network = build_network(options, 3)
    load_backbone(network, options, 3)
    assert torch.equal(network.backbone.conv1[6].weight, donor.conv1[6].weight)
    tool("check").output(), tool("check", "resnet10t").output()
    monkeypatch.setattr(files, "known_backbones", lambda: ["resnet10t"])
    Path("pretrained/resnet10t.pth").rename("pretrained/resnet18.pth")
    code, out, _ = tool("check", "resnet18", "--folder", "pretrained")
    assert code == 1 and "not the weights of resnet18" in out
    Path("pretrained/resnet18.pth").rename("pretrained/resnet10t.pth")
    err = tool("fetch", "resnet10t", "--from", "mm.pth").mistake()
    assert "exists already" in err


@pytest.mark.parametrize(
    "answer, problem",
    [
        (URLError("no route"), "no route.*--from FILE"),
        (io.BytesIO(b"x"), "expected sha256 1762acc0"),
    ],
)
def test_no_network_and_another_file_are_one_line(answer, problem, tool, tmp_path, monkeypatch):
    def open_url(url, timeout):
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(urllib.request, "urlopen", open_url)
    err = tool("fetch", "resnet50s").mistake()
    assert re.search(problem, err)
    assert not [*(tmp_path / "pretrained").iterdir()]


def test_every_published_file_is_listed(tool, tmp_path, monkeypatch):
    assert megabytes("test_resnet") == 2
    monkeypatch.setattr(files, "known_backbones", known_backbones)
    out = tool("list").output()
    assert all(source.file in out and source.where in out for source in SOURCES)
    for source in SOURCES:  # a hash in a file name must be the recorded hash
        assert source.sha256 in source.file and len(source.sha256) in (0, 8)
    code, out, _ = tool("check", "resnet101s")
    assert code == 1 and "missing. Fix: python -m tools.weights fetch resnet101s" in out


def test_hashes_are_those_that_timm_knows():
    for name in ("resnet50s", "resnet101s"):
        assert sources_of(name)[0].where == timm.get_pretrained_cfg(name).url
    for size in ("small", "base", "large", "giant"):
        name = f"vit_{size}_patch14_dinov2"
        assert sources_of(name)[0].where == timm.get_pretrained_cfg(name).url
