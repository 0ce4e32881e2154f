"""Backbones that keep few activations: activation checkpointing and locked weights."""

import copy

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from engine.optimizer import build_optimizer
from model.build import build_network
from model.network import eval_mode
from model.recompute import recompute_blocks
from util.config.schema import Model, Optimizer
from util.errors import UserError

VIT = Model(network="dpt", backbone="test_vit", channels=8, pretrained="none")
CNN = Model(backbone="resnet10t", channels=8, aspp_rates=(1, 2, 3), pretrained="none")


def vary(options, **more):
    return options.model_copy(update=more)


def forward_backward(network, x):
    """Return the loss, and the count of numbers that the backbone kept for the backward pass."""
    kept = []
    with saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        features = network.features(x)
    loss = network.decode(features, x.shape[-2:]).square().mean()
    loss.backward()
    return loss.item(), sum(kept)


BACKBONES = [
    VIT,
    CNN,
    vary(CNN, backbone="test_efficientnet"),
    vary(CNN, backbone="test_convnext", output_stride=32),
    Model(network="unet", widths=(4, 8, 8), dropout=(0, 0, 0), pretrained="none"),
]


@pytest.mark.parametrize(
    "options, compiled",
    [*((options, False) for options in BACKBONES), (CNN, True)],
    ids=lambda value: f"{value.network} {value.backbone}" if value in BACKBONES else str(value),
)
def test_checkpointing_changes_nothing_but_memory(options, compiled):
    plain = build_network(options, 3).train()
    saving = build_network(vary(options, checkpoint_activations=True), 3).train()
    saving.load_state_dict(plain.state_dict())
    saving = copy.deepcopy(saving)  # as an EMA teacher is made
    if compiled:
        saving.backbone.compile(backend="eager")  # needs no C++ compiler
    x = torch.randn(2, 3, 64, 64)
    (loss, kept), (same, less) = forward_backward(plain, x), forward_backward(saving, x)
    assert same == pytest.approx(loss, rel=1e-6) and less < kept / 2
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert a.grad is None or torch.allclose(a.grad, b.grad, rtol=1e-6, atol=1e-6), name
    for (name, a), b in zip(plain.named_buffers(), saving.buffers(), strict=True):
        assert torch.equal(a, b), name  # running statistics, and batches counted once


def test_a_backbone_without_blocks_cannot_be_checkpointed():
    options = vary(CNN, backbone="vgg11_bn", output_stride=32, checkpoint_activations=True)
    with torch.device("meta"), pytest.raises(UserError, match="checkpoint_activations.*no blocks"):
        build_network(options, 3)


@pytest.mark.parametrize("options", [VIT, CNN], ids=lambda o: o.network)
def test_a_locked_backbone_stays_as_it_is(options):
    network = build_network(vary(options, lock_backbone=True, checkpoint_activations=True), 3)
    before = copy.deepcopy(network.backbone.state_dict())
    optimizer = build_optimizer(network, Optimizer())
    with eval_mode(network):
        assert not network.head.training
    network.train()
    assert network.head.training and not any(m.training for m in network.backbone.modules())
    _, kept = forward_backward(network, torch.randn(2, 3, 64, 64))
    optimizer.step()
    assert kept == 0
    assert all(torch.equal(v, before[k]) for k, v in network.backbone.state_dict().items())


def test_a_block_is_run_again_with_what_it_was_given():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(2, 2))

        def forward(self, x, scale=1):
            return scale * self.inner(x).square()

    backbone = nn.Sequential(Block())
    recompute_blocks(backbone)
    x = torch.ones(1, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(backbone[0](x, scale=3).sum(), x)
    (once,) = torch.autograd.grad(backbone[0](x).sum(), x)
    assert once.any()
    torch.testing.assert_close(gradient, 3 * once)
