"""Steps against the literal transcriptions of `literal.py`, on random batches."""

import copy
import itertools

import pytest
import torch

from fixmatch import FixMatch
from model.build import build_network
from prevmatch import PrevMatch
from rankmatch import RankMatch
from semi.ranking import choose_references, cutmix_features, ranking_probabilities
from tests.literal import (
    features_mixed_at_full_size,
    first_reference,
    fix_draws,
    fixmatch_literally,
    plackett_luce,
    prevmatch_literally,
    rankmatch_literally,
    references_literally,
    taught_literally,
    unimatch_literally,
)
from unimatch import UniMatch
from unimatch_v2 import UniMatchV2
from util.config.loading import load_config


def views_batch(seed, images, size, classes, views, partner, padding):
    g = torch.Generator().manual_seed(seed)

    def image():
        return torch.randn(images, 3, size, size, generator=g)

    def ignore():
        mask = torch.zeros(images, size, size, dtype=torch.bool)
        if padding:
            mask[-1, size // 2 :] = True
        return mask

    boxes = []
    for _ in range(views):
        box = torch.zeros(images, size, size, dtype=torch.bool)
        box[0, 3:17, 5 : size - 4] = True
        box[-1, : 4 + len(boxes), :9] = True
        boxes.append(box)
    mask = torch.randint(classes, (images, size, size), generator=g)
    mask[0, :3] = 255
    unlabeled = {"weak": image(), "ignore": ignore(), "strong": [image() for _ in range(views)]}
    unlabeled["box"] = boxes
    if partner:
        unlabeled["partner"] = {"weak": image(), "ignore": ignore()}
    else:
        unlabeled["partner_index"] = torch.arange(images).roll(1)
    return {"labeled": {"image": image(), "mask": mask}, "unlabeled": unlabeled}


BATCHES = [
    # seed, images, size, tau, classes, partner, padding
    (0, 2, 33, 0.0, 3, True, True),
    (0, 2, 33, 0.0, 3, False, False),
    (1, 3, 41, 0.5, 5, False, True),
    (2, 2, 48, 0.9, 2, True, False),
    (2, 2, 48, 0.9, 2, False, True),
]
every_batch = pytest.mark.parametrize("seed, images, size, tau, classes, partner, padding", BATCHES)


def build(toy, kind, seed, classes, *settings):
    """Build a method whose network is confident at some pixels."""
    config = load_config(toy.config, list(settings))
    torch.manual_seed(seed)
    network = build_network(config.model, classes).train()
    with torch.no_grad():
        network.classifier.weight *= 20
    return kind(network, config)


@every_batch
@pytest.mark.parametrize(
    "kind, literally",
    [
        (FixMatch, fixmatch_literally),
        (UniMatch, unimatch_literally),
        (RankMatch, rankmatch_literally),
    ],
)
def test_step(
    kind, literally, seed, images, size, tau, classes, partner, padding, toy, monkeypatch
):
    # With fewer channels, all may be 0 at a pixel; its four nearest references are then arbitrary.
    method = build(toy, kind, seed, classes, f"conf_thresh={tau}", "model.channels=16")
    batch = views_batch(seed, images, size, classes, kind.strong_views, partner, padding)
    fix_draws(monkeypatch)
    expected = literally(copy.deepcopy(method.model), batch, tau)
    loss, _ = method(batch)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def first_stays_whole(features):
    images = len(features[0]) // 2
    factors = [2.0 * (torch.arange(f.shape[1]) % 2).repeat(images, 1) for f in features]
    for factor in factors:
        factor[0] = 1
    return factors


@every_batch
@pytest.mark.parametrize("kind, teacher", [
    (FixMatch, "ema"), (UniMatchV2, "ema"), (UniMatchV2, "self"),
])  # fmt: skip
def test_with_a_teacher(
    kind, teacher, seed, images, size, tau, classes, partner, padding, toy, monkeypatch
):
    method = build(toy, kind, seed, classes, f"conf_thresh={tau}", f"method.teacher={teacher}")
    batch = views_batch(seed, images, size, classes, kind.strong_views, partner, padding)
    monkeypatch.setattr("unimatch_v2.draw_complementary", first_stays_whole)
    with torch.no_grad():
        if teacher == "self":  # the averaged network must have no effect
            method.model_ema.classifier.weight.normal_()
        network = copy.deepcopy(method.model)
        expected = taught_literally(network, batch, tau, kind.strong_views)
    loss, _ = method(batch)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_probabilities_of_all_orders():
    """Use probabilities far from uniform, unlike those of untrained features."""
    q = (3 * torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))).softmax(-1)
    order = q.topk(4, dim=-1).indices
    found = ranking_probabilities(q, order)
    assert found.shape == (2, 5, 24)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 5), rtol=0, atol=1e-4)
    for image, pixel in itertools.product(range(2), range(5)):
        orders = itertools.permutations(order[image, pixel].tolist())
        expected = [plackett_luce(q[image, pixel].tolist(), one) for one in orders]
        assert found[image, pixel].tolist() == pytest.approx(expected, rel=1e-4)


@every_batch
@pytest.mark.parametrize("mode", ["pixelwise", "pixelavg", "imageavg"])
def test_prevmatch(mode, seed, images, size, tau, classes, partner, padding, toy, monkeypatch):
    method = build(
        toy, PrevMatch, seed, classes, f"conf_thresh={tau}", "epochs=6",
        f"method={{prev: {{conf_thresh: 0.4, confidence: {mode}}}}}",
    )  # fmt: skip
    states = [build(toy, PrevMatch, 9 + i, classes).model.state_dict() for i in range(3)]
    for state in states:
        method.keep_snapshot(state)
    epoch, weight = [(1, 1 / 3), (3, 1.0), (4, 2 / 3)][seed]  # epochs of 6
    method.after_epoch(epoch - 1, is_best=False)
    batch = views_batch(seed, images, size, classes, 2, partner, padding)
    fix_draws(monkeypatch)
    network = copy.deepcopy(method.model)
    expected = prevmatch_literally(network, batch, tau, states, weight, 0.4, mode)
    loss, _ = method(batch)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert expected != pytest.approx(unimatch_literally(network, batch, tau), rel=1e-3)


@pytest.mark.parametrize("size", [(33, 33), (41, 57), (48, 40), (7, 5), (2, 3)])
@pytest.mark.parametrize("small", [(3, 3), (6, 4), (1, 2), (7, 5)])
def test_mixed_features(size, small):
    g = torch.Generator().manual_seed(0)
    own, other = (torch.randn(2, 8, *small, generator=g) for _ in range(2))
    box = torch.rand(2, *size, generator=g) < 0.5
    expected = features_mixed_at_full_size(own, other, box)
    torch.testing.assert_close(cutmix_features(own, other, box), expected.float())
    rolled = features_mixed_at_full_size(own, own.roll(1, 0), box)
    torch.testing.assert_close(cutmix_features(own, torch.tensor([1, 0]), box), rolled.float())


def test_features_are_mixed_in_float32():
    own, other = torch.randn(2, 1, 4, 20, 20, generator=torch.Generator().manual_seed(0))
    own, other = own.bfloat16(), other.bfloat16()
    box = torch.zeros(1, 320, 320, dtype=torch.bool)
    box[:, :160] = True
    with torch.autocast("cpu", torch.bfloat16):
        mixed = cutmix_features(own, other, box)
    expected = features_mixed_at_full_size(own.float(), other.float(), box)
    torch.testing.assert_close(mixed, expected.float())


@pytest.mark.parametrize("count", [4, 16, 64])
def test_references(count, monkeypatch):
    features = torch.randn(3, 8, 5, 9, generator=torch.Generator().manual_seed(0))
    fix_draws(monkeypatch)
    chosen = choose_references(features, count)
    for b in range(3):
        pixels = features[b].flatten(1).T.double().numpy()
        assert chosen[b].tolist() == references_literally(pixels, b, count)
        assert first_reference(b, 45) in chosen[b]
    assert choose_references(torch.ones(1, 4, 3, 3), 64).tolist() == [list(range(9))]
