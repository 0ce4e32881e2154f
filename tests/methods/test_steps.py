"""Functions and steps of the methods against slow transcriptions of their definitions."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from corrmatch import CorrMatch
from engine.method import LEGEND
from engine.optimizer import build_optimizer
from model.build import build_network
from model.network import eval_no_grad
from prevmatch import PrevMatch
from semi.correlation import mean_class_confidence, pixels_in, propagate_regions
from semi.criterion import OhemCrossEntropy
from semi.perturbation import with_dropped_channels
from semi.pseudo_labels import (
    PseudoLabel,
    consistency_loss,
    label_partner,
    pseudo_label,
)
from supervised import SupOnly
from tests.batches import FAMILIES, raw_batch
from tests.conftest import METHODS, every_method
from util import distributed
from util.config.loading import load_config
from util.precision import autocast


def propagate_literally(label, confident, regions, tau, num_classes):
    label, reliable = label.clone(), confident.clone()
    for b in range(len(label)):
        for region in regions[b]:
            support = region & confident[b]
            if support.sum() == 0 or support.sum() / region.sum() < tau:
                continue
            counts = [(label[b][support] == c).sum().item() for c in range(num_classes)]
            winner = max(range(num_classes), key=lambda c: (counts[c], -c))
            if counts[winner] / support.sum() > tau:
                label[b][region] = winner
                reliable[b] |= region
    return label, reliable


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tau", [0.0, 0.3, 0.5, 0.8])
def test_region_propagation(seed, tau):
    g = torch.Generator().manual_seed(seed)
    classes = 2 + seed
    # Smooth labels and overlapping rectangles, some empty: every branch is taken.
    coarse = torch.randint(classes, (3, 1, 4, 5), generator=g).float()
    label = F.interpolate(coarse, (16, 20)).long()[:, 0]
    confident = torch.rand(3, 16, 20, generator=g) < 0.7
    regions = torch.zeros(3, 24, 16, 20, dtype=torch.bool)
    for region in regions.flatten(0, 1):
        y, x, h, w = torch.randint(0, 12, (4,), generator=g).tolist()
        region[y : y + h, x : x + w] = True
    tau = torch.tensor(tau)
    ours = propagate_regions(label, confident, regions, tau, classes)
    literal = propagate_literally(label, confident, regions, tau, classes)
    assert torch.equal(ours[0], literal[0]) and torch.equal(ours[1], literal[1])
    assert (ours[0] != label).any() or tau >= 0.8


@pytest.mark.parametrize("pixels", [1, 127, 128, 129, 3000])
def test_pixels_in(pixels):
    masks = torch.rand(2, 3, pixels) < torch.tensor([0.0, 0.5, 1.0])[:, None]
    assert torch.equal(pixels_in(masks), masks.sum(2).float())


def test_mean_class_confidence(monkeypatch):
    label = torch.tensor([[[0, 0, 2, 2, 1]]])
    conf = torch.tensor([[[0.5, 0.9, 0.4, 0.7, 0.99]]])
    valid = torch.tensor([[[True, True, True, True, False]]])
    now = mean_class_confidence(label, conf, valid, 4, torch.tensor(0.1))
    assert now.item() == pytest.approx((0.9 + 0.7) / 2)
    alone = mean_class_confidence(label, conf, valid & (label == 0), 4, torch.tensor(0.1))
    assert alone.item() == pytest.approx(0.9)
    none = mean_class_confidence(label, conf, valid & False, 4, torch.tensor(0.1))
    elsewhere = {"max": torch.tensor([0.95, 0.0, 0.6, 0.8])}
    reduce = lambda x, op="sum": x.copy_(x.max(elsewhere[op]))  # noqa: E731
    monkeypatch.setattr(distributed, "all_reduce", reduce)
    everywhere = mean_class_confidence(label, conf, valid, 4, torch.tensor(0.1))
    assert everywhere.item() == pytest.approx((0.95 + 0.7 + 0.8) / 3)
    assert none.item() == pytest.approx(0.1)


def test_consistency_without_valid_pixels_is_zero():
    logits, label = torch.randn(2, 5, 3, 3), torch.randint(5, (2, 3, 3))
    target = PseudoLabel(label, torch.ones(2, 3, 3), label < 0)
    assert consistency_loss(logits, target, 0.5).item() == 0


def test_dropped_channels_follow_the_features():
    f = torch.ones(2, 1000, 3, 3)
    (out,) = with_dropped_channels([f])
    assert torch.equal(out[:2], f) and set(out[2:].unique().tolist()) == {0.0, 2.0}
    assert abs((out[2:] == 0).float().mean() - 0.5) < 0.05


def test_eval_mode_restores_the_mode_of_each_part():
    bn, frozen = nn.BatchNorm2d(2), nn.BatchNorm2d(2).eval()
    network = nn.Sequential(bn, frozen)
    with eval_no_grad(network):
        network(torch.randn(2, 2, 4, 4)).sum()
        assert not bn.training and not torch.is_grad_enabled()
    assert bn.training and torch.is_grad_enabled() and bn.num_batches_tracked == 0
    assert network.training and not frozen.training


@pytest.mark.parametrize("min_kept, thresh", [(1, 0.7), (10, 0.3), (24, 0.1), (30, 0.2)])
def test_ohem(min_kept, thresh):
    logits, target = 3 * torch.randn(2, 4, 5, 5), torch.randint(4, (2, 5, 5))
    target[0, :2] = 255
    probability = torch.ones(2, 5, 5)
    for index in (target != 255).nonzero().tolist():
        b, i, j = index
        probability[b, i, j] = logits.softmax(1)[b, target[b, i, j], i, j]
    kept = 2 * min_kept
    cut = max(thresh, sorted(probability.flatten().tolist())[min(kept, 50) - 1])
    keep = target != 255
    if keep.sum() >= kept:
        keep &= probability <= cut
    expected = F.cross_entropy(logits, torch.where(keep, target, 255), ignore_index=255)
    torch.testing.assert_close(OhemCrossEntropy(thresh, min_kept)(logits, target), expected)


@every_method
@pytest.mark.parametrize("family", FAMILIES)
def test_two_steps_on_every_family_of_networks(kind, family, toy):
    config = load_config(toy.config, [f"model={FAMILIES[family]}", "conf_thresh=0.0"])
    torch.manual_seed(0)
    method = kind(build_network(config.model, 3).train(), config)
    optimizer = build_optimizer(method, config.optimizer)
    # Of five images, four groups and five, two and three, are different cuts.
    batch = raw_batch(5, size=48, partner=family != "unet", views=kind.strong_views)
    for iteration in range(2):
        optimizer.zero_grad()
        loss, scalars = method(batch)
        loss.backward()
        moved = [p.grad is not None for p in method.model.parameters() if p.requires_grad]
        assert all(moved) and all(value.isfinite() for value in (loss, *scalars.values()))
        assert scalars.keys() <= LEGEND.keys()  # explained at the start of a training
        optimizer.step()
        method.after_step(iteration)
        method.after_epoch(iteration, is_best=True)
    with torch.no_grad():
        assert kind is SupOnly or method.eval().panels(batch)


def test_pspnet_drops_out_once_after_its_context(toy):
    """RankMatch ranks the context, so the context must not depend on dropout."""
    config = load_config(toy.config, [f"model={FAMILIES['pspnet']}"])
    network = build_network(config.model, 3).train()
    features = network.features(torch.randn(2, 3, 33, 33))
    once, again = (network.context(features)[-1] for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.equal(*(network.classify([once], (33, 33)) for _ in range(2)))


@pytest.mark.parametrize("kind", [kind for kind in METHODS.values() if kind is not SupOnly])
def test_each_strong_view_counts(kind, toy):
    config = load_config(toy.config, ["conf_thresh=0.0"])
    torch.manual_seed(0)
    method = kind(build_network(config.model, 3), config).eval()
    batch = raw_batch(3, views=kind.strong_views)
    views = batch["unlabeled"]["strong"]
    for number in range(len(views)):
        others = [torch.full_like(v, math.nan) if n == number else v for n, v in enumerate(views)]
        loss, _ = method(batch | {"unlabeled": batch["unlabeled"] | {"strong": others}})
        assert loss.isnan()


class HostReads(TorchDispatchMode):
    """Recorder of the operations for which the host would wait for a GPU."""

    WAIT = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = args[1] if name in ("index", "index_put", "index_put_") else []
        if name in self.WAIT or any(m is not None and m.dtype == torch.bool for m in masks):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@every_method
def test_a_step_reads_nothing_back(kind, toy):
    config = load_config(toy.config)
    method = kind(build_network(config.model, 3), config)
    if kind is PrevMatch:
        method.keep_snapshot(method.model.state_dict())
    for partner in (False, True):
        batch = raw_batch(2, partner=partner, views=kind.strong_views)
        with HostReads() as reads:
            loss, _ = method(batch)
            loss.backward()
        assert reads.found == []
    # A mode changes what runs in the backward pass, a profiler does not.
    loss, _ = method(batch)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        loss.backward()
    ran = {event.key.removeprefix("aten::") for event in profile.key_averages()}
    assert "convolution_backward" in ran and not ran & {"item", *HostReads.WAIT}
    with HostReads() as reads:
        loss.item()
    assert reads.found == ["_local_scalar_dense"]


def test_fixed_threshold_stays(toy):
    """Also when a resumed run had another threshold; a dynamic one continues."""
    config = load_config(toy.config, ["method={thresh_init: null}", "conf_thresh=0.0"])
    method = CorrMatch(build_network(config.model, 3), config)
    dynamic = CorrMatch(build_network(config.model, 3), load_config(toy.config))
    method.load_state_dict(dynamic.state_dict())
    method(raw_batch(2))
    assert method.tau.item() == 0.0
    dynamic.load_state_dict(method.state_dict())
    assert dynamic.tau.item() == 0.0


def test_dynamic_threshold_moves_once_per_step(toy):
    """Two micro-batches of 2 images move it as far as one step of 2 images."""
    found = []
    for parts in (1, 2):
        settings = ["method.thresh_momentum=0.5", f"batch_size={2 * parts}"]
        config = load_config(toy.config, settings)
        torch.manual_seed(0)
        method = CorrMatch(build_network(config.model, 3), config).eval()
        for _ in range(parts):
            method(raw_batch(2))
        found.append(method.tau.item())
    assert found[0] == pytest.approx(found[1]) != 0.85


def test_divergence_of_views_is_computed_in_float32(toy, monkeypatch):
    """On CPUs, autocast leaves softmax in bfloat16."""
    inputs = []
    kl_div = F.kl_div
    monkeypatch.setattr(F, "kl_div", lambda *x, **more: inputs.extend(x) or kl_div(*x, **more))
    config = load_config(toy.config)
    method = CorrMatch(build_network(config.model, 3), config)
    with autocast(torch.device("cpu"), "bfloat16"):
        method(raw_batch(2))
    assert [x.dtype for x in inputs] == 2 * [torch.float32]


def test_partner_is_labelled_in_eval_mode_without_touching_statistics(toy):
    config = load_config(toy.config)
    network = build_network(config.model, 3)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    batch = raw_batch(2)["unlabeled"]
    found = label_partner(network.train(), batch)
    assert network.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    with torch.no_grad():
        expected = pseudo_label(network.eval()(batch["partner"]["weak"]), batch["ignore"])
    assert torch.equal(found.label, expected.label)
