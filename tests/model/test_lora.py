"""LoRA on a ViT: its definition, trained parameters, and checkpoints without the base weights."""

import copy
import json
import sys
from pathlib import Path

import pytest
import timm
import torch

import evaluate
from engine.optimizer import build_optimizer
from model.build import build_network
from model.checkpoint import load
from model.lora import merge_adapters
from model.pretrained import load_backbone
from semi.ema import frozen_copy, update_ema
from tests.conftest import json_lines
from unimatch_v2 import UniMatchV2
from util.config.loading import load_config
from util.config.schema import Model, Optimizer
from util.errors import UserError

pytest.importorskip("peft")


@pytest.fixture
def options(tmp_path):
    """A pretrained ViT in a file, and adapters of rank 2."""
    torch.manual_seed(7)
    vit = timm.create_model("test_vit", num_classes=0, global_pool="")
    torch.save(vit.state_dict(), tmp_path / "vit.pth")
    file = str(tmp_path / "vit.pth")
    return Model(network="dpt", backbone="test_vit", pretrained=file, lora=2)


def adapted(options):
    network = build_network(options, 3)
    assert "entries loaded" in load_backbone(network, options, 3)
    return network


def test_an_adapted_layer_is_by_hand(options):
    """Compare with W x + b + B A x; B starts at 0, so the network starts as the pretrained one."""
    network = adapted(options)
    plain = build_network(options.model_copy(update={"lora": 0}), 3)
    load_backbone(plain, options, 3)
    x = torch.randn(1, 3, 32, 48)
    for mine, theirs in zip(network.features(x), plain.features(x), strict=True):
        torch.testing.assert_close(mine, theirs)
    layer, own = network.backbone.blocks[2].attn.qkv, plain.backbone.blocks[2].attn.qkv
    a, b = layer.lora_A.default.weight, layer.lora_B.default.weight
    torch.nn.init.normal_(b)
    tokens = torch.randn(4, 64)
    by_hand = tokens @ own.weight.T + own.bias + tokens @ a.T @ b.T
    torch.testing.assert_close(layer(tokens), by_hand)


def test_only_adapters_and_decoder_are_trained(options):
    network = adapted(options)
    backbone, rest = build_optimizer(network, Optimizer(lr=1e-4, lr_multi=2)).param_groups
    assert (
        backbone["lr"] == 1e-4 and len(backbone["params"]) == 6 * 2 * 2
    )  # blocks, layers, A and B
    assert len(rest["params"]) == sum(p.requires_grad for p in network.head.parameters())
    network(torch.randn(2, 3, 32, 32)).square().mean().backward()
    assert all(p.grad is not None for group in (backbone, rest) for p in group["params"])


def test_states_hold_adapters_and_go_with_their_base_alone(options, tmp_path):
    network = adapted(options)
    torch.nn.init.normal_(network.backbone.blocks[0].attn.proj.lora_B.default.weight)
    state = {k: v.clone() for k, v in network.state_dict().items()}
    assert not [k for k in state if "blocks" in k and ".lora_" not in k]
    other = adapted(options)
    other.load_state_dict(state)
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(other.eval()(x), network.eval()(x))
    with pytest.raises(UserError, match="model.pretrained: found other weights"):
        build_network(options, 3).load_state_dict(state)
    changed = load(Path(options.pretrained))
    changed["blocks.3.mlp.fc1.bias"][0] += 1
    torch.save(changed, tmp_path / "changed.pth")
    changed = adapted(options.model_copy(update={"pretrained": str(tmp_path / "changed.pth")}))
    with pytest.raises(UserError, match="model.pretrained: found other weights"):
        changed.load_state_dict(state)


def test_a_teacher_follows(options):
    student = adapted(options)
    teacher = frozen_copy(student)
    weight = student.backbone.blocks[1].attn.qkv.lora_B.default.weight
    with torch.no_grad():
        weight += 1
    update_ema(teacher, student, 1, 0.996)
    torch.testing.assert_close(
        teacher.backbone.blocks[1].attn.qkv.lora_B.default.weight, weight * 0.5
    )
    assert copy.deepcopy(teacher).state_dict().keys() == student.state_dict().keys()


def test_merged_adapters_are_plain_weights(options, toy):
    network, config = adapted(options), load_config(toy.config)
    for layer in network.backbone.blocks[3].attn.qkv, network.backbone.blocks[0].attn.proj:
        torch.nn.init.normal_(layer.lora_B.default.weight)
    x = torch.randn(1, 3, 32, 48)
    before = network.eval()(x)
    found = merge_adapters(network, config.model_copy(update={"model": options}))
    assert found.model == options.model_copy(update={"lora": 0})
    plain = build_network(found.model, 3).eval()
    plain.load_state_dict(network.state_dict())
    torch.testing.assert_close(plain(x), before)
    torch.testing.assert_close(network(x), before)
    assert merge_adapters(plain, config) is config


def test_training_resuming_and_evaluation(options, toy, train, run, tmp_path):
    toy.tree["model"] = options.model_dump(include={"network", "backbone", "pretrained", "lora"})
    toy.tree |= {"crop_size": 32, "optimizer": {"name": "adamw"}, "cutmix_partner": "flip"}
    toy.write_config()
    folder, scores = tmp_path / "run", tmp_path / "scores.json"
    train(UniMatchV2, toy.argv(folder))
    train(UniMatchV2, toy.argv(folder, "--set", "epochs=3", "--force"))
    run(evaluate, "--checkpoint", folder / "latest.pth", "--json", scores).output()
    logged = json_lines(folder / "metrics.jsonl")[-1]["scores"]["model"]
    assert json.loads(scores.read_text())["iou"] == logged["iou"]


@pytest.mark.parametrize(
    "settings, problem",
    [
        (["model.lora=2", "model.network=dpt", "model.pretrained=none"], "lora needs network dpt"),
        (["model.lora=2", "model.pretrained=file"], "lora needs network dpt"),
        (
            ["model={network: dpt, lora: 2, pretrained: file, lock_backbone: true}"],
            "lora trains the backbone",
        ),
    ],
)
def test_invalid_configs(settings, problem, toy):
    with pytest.raises(UserError, match=problem):
        load_config(toy.config, settings)


def test_backbones_that_bypass_their_layers_and_lack_of_peft(options, monkeypatch):
    with pytest.raises(UserError, match="model.lora: the attention of this backbone"):
        build_network(options.model_copy(update={"backbone": "vit_tiny_patch16_dinov3_qkvb"}), 3)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match="model.lora: needs peft"):
        build_network(options, 3)
