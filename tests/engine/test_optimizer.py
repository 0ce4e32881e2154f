"""Parameter groups: learning rates, and the order that checkpoints rely on."""

from pathlib import Path

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from engine.optimizer import build_optimizer, load_optimizer, set_poly_lr, with_scaled_lr
from model.build import build_network
from semi.ema import frozen_copy
from tests.batches import FAMILIES
from tests.conftest import METHODS, saved
from util.config.loading import load_config
from util.config.schema import Model, Optimizer
from util.errors import UserError

OPTIONS = Optimizer(lr=0.01, lr_multi=10)


class TwoNetworks(nn.Module):
    """Two trained networks, one of them wrapped, an EMA copy, and a head whose name misleads."""

    def __init__(self, options: Model):
        super().__init__()
        self.model, self.other = build_network(options, 3), nn.Sequential(build_network(options, 3))
        self.model_ema = frozen_copy(self.model)
        self.backbone = nn.Linear(2, 2)

    @property
    def backbones(self) -> list[nn.Module]:
        return [self.model.backbone, self.other[0].backbone]


@pytest.fixture(params=FAMILIES)
def options(request, toy):
    return load_config(toy.config, [f"model={FAMILIES[request.param]}"]).model


def trained(*modules):
    return [p for module in modules for p in module.parameters() if p.requires_grad]


def test_backbones_of_all_networks_learn_at_lr_and_the_rest_faster(options):
    method = TwoNetworks(options)
    backbone, rest = build_optimizer(method, OPTIONS).param_groups
    assert (backbone["base_lr"], rest["base_lr"]) == (0.01, 0.1)
    assert [*map(id, backbone["params"])] == [*map(id, trained(*method.backbones))]
    ids = {*map(id, backbone["params"])}
    assert [*map(id, rest["params"])] == [id(p) for p in trained(method) if id(p) not in ids]


def test_a_checkpoint_of_one_group_gives_each_parameter_its_own_momentum(options):
    """Load the optimizer state of earlier versions, which trained U-Nets in one group."""
    torch.manual_seed(0)
    network = build_network(options, 3)
    before = torch.optim.SGD(trained(network), 0.1, momentum=0.9)
    for parameter in trained(network):
        parameter.grad = torch.randn_like(parameter)
    before.step()
    optimizer = build_optimizer(network, OPTIONS)
    load_optimizer(optimizer, before.state_dict(), Path("latest.pth"))
    for parameter in trained(network):
        momentum = optimizer.state[parameter]["momentum_buffer"]
        assert torch.equal(momentum, before.state[parameter]["momentum_buffer"])


VIT = Model(network="dpt", backbone="test_vit", pretrained="none")  # six blocks


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_groups_of_layer_decay(name):
    """Seven rates of the backbone, from 0.064 of the last block down to 0.001; one of the head."""
    network = build_network(VIT, 3)
    options = Optimizer(name=name, lr=0.064, lr_multi=10, layer_decay=0.5, weight_decay=0.02)
    optimizer = build_optimizer(network, options)
    assert isinstance(optimizer, torch.optim.AdamW if name == "adamw" else torch.optim.SGD)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.02}
    rates = {p: g["base_lr"] for g in optimizer.param_groups for p in g["params"]}
    assert rates[network.backbone.pos_embed] == pytest.approx(0.001)
    assert {round(rates[p], 9) for p in trained(network.head)} == {0.64}
    assert len(rates) == len(trained(network)) and len(optimizer.param_groups) == 7 + 1
    assert set_poly_lr(optimizer, 6, 10, 1.0) == pytest.approx(0.032), "the fastest of the backbone"
    assert optimizer.param_groups[6]["lr"] == pytest.approx(0.0005)


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "vit_small_patch14_dinov2"])
def test_layer_decay_is_that_of_timm(name):
    """Compare rates with timm's, for DINOv3's registers and DINOv2's untrained mask token, too."""
    with torch.device("meta"):
        network = build_network(VIT.model_copy(update={"backbone": name}), 3)
        options = Optimizer(name="adamw", lr=1.0, layer_decay=0.9)
        groups = build_optimizer(network, options).param_groups
        other = timm.create_model(name, num_classes=0)
    found = {p: g["base_lr"] for g in groups for p in g["params"]}
    names = {id(p): n for n, p in other.named_parameters()}
    for group in param_groups_layer_decay(other, layer_decay=0.9):
        for parameter in group["params"]:
            own = network.backbone.get_parameter(names[id(parameter)])
            assert found[own] == pytest.approx(group["lr_scale"]), names[id(parameter)]


def test_layer_decay_counts_from_the_last_trained_block():
    network = build_network(VIT.model_copy(update={"layers": [1, 2, 3, 4]}), 3)
    options = Optimizer(name="adamw", lr=1.0, lr_multi=10, layer_decay=0.5)
    rates = {p: g["base_lr"] for g in build_optimizer(network, options).param_groups
             for p in g["params"]}  # fmt: skip
    vit = network.backbone
    found = [rates[p] for p in (vit.blocks[3].mlp.fc1.weight, vit.blocks[2].mlp.fc1.weight,
                                vit.norm.weight, vit.pos_embed)]  # fmt: skip
    assert found == [1, 0.5, 1, 0.5**4]


def test_layer_decay_needs_layers(toy):
    network = build_network(load_config(toy.config).model, 3)
    with pytest.raises(UserError, match="layer_decay: found 0.9.*dpt on a ViT"):
        build_optimizer(network, Optimizer(layer_decay=0.9))


def test_a_locked_backbone_is_left_out(options):
    network = build_network(options.model_copy(update={"lock_backbone": True}), 3)
    (rest,) = build_optimizer(network, OPTIONS).param_groups
    assert rest["base_lr"] == 0.1 and len(rest["params"]) == len(trained(network))


LINEAR_RULE = [
    # settings, learning rate, log
    ([], 0.02, ""),
    (["optimizer.lr_batch=2"], 0.02, ""),
    (["optimizer.lr_batch=2", "optimizer.scale_lr=true"], 0.02, ""),
    (["optimizer.lr_batch=8"], 0.02, "linear rule gives 0.005; schedules count epochs: 2"),
    (["optimizer.lr_batch=8", "optimizer.scale_lr=true"], 0.005, "scaled to 0.005"),
    (["optimizer.lr_batch=1", "optimizer.scale_lr=true"], 0.04, "scaled to 0.04"),
    (["optimizer.lr_batch=8", "epoch_length=5"], 0.02, "epochs keep their 5 steps"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "lr", "log"), LINEAR_RULE)
def test_the_linear_rule_scales_or_is_named(toy, caplog, settings, lr, log):
    caplog.set_level("INFO")
    config = with_scaled_lr(load_config(toy.config, ["optimizer.lr=0.02", *settings]))
    assert config.optimizer.lr == lr
    assert log in caplog.text and caplog.text.count("\n") == bool(log)
    assert with_scaled_lr(config).optimizer.lr == lr


def test_a_run_keeps_the_scaled_rate_and_resumes(toy, train, training_error, tmp_path):
    scaled = ["--set", "optimizer.lr_batch=8", "optimizer.scale_lr=true"]
    train(METHODS["supervised"], toy.argv(tmp_path / "run", *scaled))
    kept = load_config(tmp_path / "run/config.yaml")
    assert (kept.optimizer.lr, kept.optimizer.lr_batch) == (0.0025, 2)
    state = saved(tmp_path / "run/latest.pth")
    assert state["optimizer"]["param_groups"][0]["base_lr"] == 0.0025
    train(METHODS["supervised"], toy.argv(tmp_path / "run", *scaled))
    error = training_error(METHODS["supervised"], toy.argv(tmp_path / "run"))
    assert "optimizer.lr (0.0025 -> 0.01)" in error, "the published rate again: another run"


def test_scaling_from_an_unknown_batch_is_refused(toy):
    with pytest.raises(UserError, match="optimizer: scale_lr needs lr_batch"):
        load_config(toy.config, ["optimizer.scale_lr=true"])
