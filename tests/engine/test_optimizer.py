"""Groups of parameters: learning rates, and the order that checkpoints rely on."""

from pathlib import Path

import pytest
import torch
from torch import nn

from engine.optimizer import build_optimizer, load_optimizer
from model.build import build_network
from semi.ema import frozen_copy
from tests.methods.test_steps import FAMILIES
from util.config.loading import load_config
from util.config.schema import Model, Optimizer

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
    """U-Nets were once trained in one group."""
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


def test_a_locked_backbone_is_left_out(options):
    network = build_network(options.model_copy(update={"lock_backbone": True}), 3)
    (rest,) = build_optimizer(network, OPTIONS).param_groups
    assert rest["base_lr"] == 0.1 and len(rest["params"]) == len(trained(network))
