"""Exact boundaries of definitions: "at least", "more than", "first" and "last"."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from corrmatch import CorrMatch
from dataset.transforms.strong import draw_box
from dataset.transforms.weak import draw_geometry
from fixmatch import FixMatch
from inference.evaluation import center_crop
from inference.predictor import (
    Predictor,
    logits_of,
    predict_sliding,
    to_mask,
    wants_windows,
)
from inference.scores import Scores
from metrics.confusion import confusion_matrix, dice
from model.build import build_network
from prevmatch import PrevMatch
from rankmatch import RankMatch
from semi.correlation import mean_class_confidence, propagate_regions, region_maps
from semi.criterion import OhemCrossEntropy, dice_loss, pixelwise_cross_entropy
from semi.pseudo_labels import (
    PseudoLabel,
    dice_consistency_loss,
    mask_ratio,
    mean_over_valid,
    pseudo_label,
)
from semi.ranking import ranking_loss
from tests.batches import raw_batch
from unimatch import UniMatch
from unimatch_v2 import UniMatchV2
from util.config.loading import load_config

# Thresholds

QUARTER = 0.25
A_LITTLE = 1e-6


def undecided(toy, kind, *settings):
    """Return a method whose network predicts four classes with a probability of 1/4 each."""
    config = load_config(toy.config, ["data.classes=[a, b, c, d]", *settings])
    network = build_network(config.model, 4).train()
    nn.init.zeros_(network.classifier.weight), nn.init.zeros_(network.classifier.bias)
    method = kind(network, config)
    if kind is PrevMatch:
        method.keep_snapshot(network.state_dict())
    return method


@pytest.mark.parametrize(
    ("kind", "setting", "learnt"),
    [
        (FixMatch, "method.teacher=self", ["s"]),
        (FixMatch, "method.teacher=ema", ["s"]),
        (UniMatch, "conf_thresh={}", ["s", "fp"]),
        (UniMatchV2, "conf_thresh={}", ["s"]),
        (RankMatch, "conf_thresh={}", ["s", "fp"]),
        (PrevMatch, "method.prev.conf_thresh={}", ["s", "fp", "prev"]),
        (CorrMatch, "method.thresh_init=null", ["s", "fp", "corr"]),
    ],
)
def test_a_confidence_that_is_the_threshold_is_enough(kind, setting, learnt, toy):
    for tau, kept in ((QUARTER, 1), (QUARTER + A_LITTLE, 0)):
        method = undecided(toy, kind, f"conf_thresh={tau}", setting.format(tau))
        _, scalars = method(raw_batch(2, views=kind.strong_views))
        assert scalars["mask_ratio"].item() == kept
        for name in learnt:
            assert scalars[name].item() == pytest.approx(kept * math.log(4)), (name, tau)


def test_dice_of_a_confidence_that_is_the_threshold():
    label = pseudo_label(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.bool))
    logits = torch.randn(1, 4, 2, 2)
    assert dice_consistency_loss(logits, label, QUARTER) > 0.1
    assert dice_consistency_loss(logits, label, QUARTER + A_LITTLE) == 0


def row(*values):
    return torch.tensor([[values]])


@pytest.mark.parametrize(
    ("labels", "confident", "taken"),
    [
        ((1, 1, 0, 0), (True, True, False, False), True),  # half of the region: not below
        ((1, 1, 0, 0, 0), (True, True, False, False, False), False),  # two fifths
        ((1, 1, 2, 2), (True, True, True, True), False),  # half of the pixels agree: not above
        ((1, 1, 1, 2), (True, True, True, True), True),
    ],
)
def test_regions_with_shares_that_are_the_threshold(labels, confident, taken):
    label, confident = row(*labels), row(*confident)
    region = torch.ones(1, 1, *label.shape[1:], dtype=torch.bool)
    new, reliable = propagate_regions(label, confident, region, torch.tensor(0.5), 3)
    assert new.tolist() == ([[[1] * len(labels)]] if taken else label.tolist())
    assert torch.equal(reliable, confident | taken)


def test_a_region_is_what_lies_above_the_middle():
    correlation = torch.tensor([[[0.0, 1.0, 2.0, 2.0 + A_LITTLE, 4.0], [3.0] * 5]])
    (strip, constant), *_ = region_maps(correlation, torch.arange(2), (1, 5), (1, 5))
    assert strip.tolist() == [[False, False, False, True, True]] and not constant.any()


@pytest.mark.parametrize(
    ("thresh", "min_kept", "hard"),
    [
        (0.5, 1, [0, 1, 2]),  # two probabilities equal the threshold
        (0.1, 2, [0, 1, 2]),  # two by rank; the third equals the second
        (0.1, 1, [0]),
        (0.1, 4, [0, 1, 2, 3]),
        (0.1, 5, [0, 1, 2, 3]),  # fewer than 5 pixels: all
    ],
)
def test_ohem_keeps_what_is_on_its_bound(thresh, min_kept, hard):
    logits = torch.zeros(1, 2, 1, 5)
    logits[0, 0, 0] = torch.tensor([-1.0, 0.0, 0.0, 2.0, 0.0])
    target = torch.tensor([[[0, 0, 0, 0, 255]]])
    assert torch.exp(-pixelwise_cross_entropy(logits, target)).flatten()[1] == 0.5
    expected = F.cross_entropy(logits[..., hard], target[..., hard])
    torch.testing.assert_close(OhemCrossEntropy(thresh, min_kept)(logits, target), expected)


# Ties, and classes that do not occur


def test_of_equally_probable_classes_the_first():
    nowhere = torch.zeros(1, 1, 3, dtype=torch.bool)
    logits = torch.tensor([[5.0, 1.0, 2.0], [5.0, 3.0, 2.0], [4.0, 3.0, 2.0]])[None, :, None]
    assert pseudo_label(logits, nowhere).label.tolist() == [[[0, 1, 0]]]
    assert to_mask(logits[0].softmax(0)).tolist() == [[0, 1, 0]]


def test_classes_that_do_not_occur():
    """Absent classes: no part in dynamic threshold and Dice loss, IoU 0, volume Dice 1."""
    label, conf, valid = row(0, 2, 2), row(0.9, 0.4, 0.6), row(True, True, False)
    found = mean_class_confidence(label, conf, valid, 4, torch.tensor(0.1))
    assert found.item() == pytest.approx((0.9 + 0.4) / 2)
    right = 100.0 * F.one_hot(label, 4).permute(0, 3, 1, 2)
    assert dice_loss(right, label, valid).item() == pytest.approx(0, abs=1e-6)
    confusion = torch.diag(torch.tensor([3, 0, 5, 0]))
    confusion[0, 3] = 1  # predicted at a single pixel, but not there
    assert Scores(confusion).iou.tolist() == [0.75, 0, 1, 0]
    assert Scores(confusion).absent.tolist() == [False, True, False, False]
    assert dice(confusion[None]).tolist() == pytest.approx([6 / 7, 1, 1, 0])


def test_of_a_single_valid_pixel():
    valid = row(False, True, False)
    target = PseudoLabel(row(0, 1, 1), row(0.9, 0.8, 0.2), valid)
    assert mask_ratio(target, 0.5).item() == 1
    assert mean_over_valid(torch.tensor([[[3.0, 2.0, 7.0]]]), valid, valid).item() == 2
    scores = Scores(torch.diag(torch.tensor([0, 1, 0])))
    assert scores.accuracy == 100 and scores.iou.tolist() == [0, 1, 0]


def test_an_image_of_a_single_valid_pixel_guides_by_its_confidence(toy):
    method = undecided(toy, PrevMatch, "method.prev.confidence=imageavg")
    prev = PseudoLabel(row(0, 1, 1), row(0.9, 0.8, 0.2), row(False, True, False))
    logits = torch.zeros(1, 4, 1, 3)
    assert method.previous_loss(logits, prev).item() == pytest.approx(0.8 * math.log(4))


def test_nothing_but_ignored_pixels_has_no_scores():
    mask = torch.full((1, 2, 2), 255, dtype=torch.uint8)
    scores = Scores(confusion_matrix(torch.zeros(1, 2, 2, dtype=torch.long), mask, 3))
    assert (scores.miou, scores.miou_present, scores.accuracy) == (0, 0, 0)


# First and last


@pytest.mark.parametrize(
    ("crop", "stride"), [(1, 1), (2, 1), (4, 2), (10, 6), (11, 7), (12, 8), (801, 534)]
)
def test_windows_move_by_two_thirds_rounded_down(crop, stride):
    image, windows = torch.arange(2.0 * crop).view(1, 1, 1, -1), []
    network = nn.Identity()
    network.register_forward_pre_hook(lambda _, args: windows.append(args[0].flatten().tolist()))
    predict_sliding(network, image, crop, "cut", 1)
    pixels = [*range(2 * crop)]
    assert windows == [pixels[first : first + crop] for first in range(0, 2 * crop, stride)]


def test_fewer_references_than_ranks():
    weak, strong = torch.randn(2, 1, 4, 3, 3)
    assert ranking_loss(weak, strong, references=2) > ranking_loss(weak, weak, 2)


@pytest.mark.parametrize("epoch, weight", [(0, 0), (1, 0.5), (2, 1), (3, 0.5), (4, 0)])
def test_previous_models_count_most_in_the_middle(epoch, weight, toy):
    method = undecided(toy, PrevMatch, "epochs=4", "conf_thresh=1", "method.prev.conf_thresh=0")
    method.epoch = epoch
    loss, scalars = method(raw_batch(2, views=2))
    expected = (scalars["x"] + weight * math.log(4)) / (2 + weight)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("size", [(33, 33), (33, 20), (34, 33), (32, 33), (40, 50)])
def test_a_crop_as_large_as_the_image(size):
    rng = np.random.default_rng(0)
    drawn = [draw_geometry(rng, size, 33, scale=(1, 1)) for _ in range(200)]
    corners, (w, h) = {g.corner for g in drawn}, size
    assert {x for x, _ in corners} == set(range(max(w - 33, 0) + 1))
    assert {y for _, y in corners} == set(range(max(h - 33, 0) + 1))
    for geometry in drawn:
        assert (~geometry.padding()).sum() == min(w, 33) * min(h, 33)


def test_no_side_is_scaled_to_less_than_a_pixel():
    rng = np.random.default_rng(0)
    assert draw_geometry(rng, (1, 40), 8, scale=(0.1, 0.1)).size == (1, 4)
    assert draw_geometry(rng, (40, 1), 8, scale=(0.1, 0.1)).size == (4, 1)


def test_the_middle_of_an_image_as_large_as_the_crop():
    for size in ((5, 5), (4, 9), (5, 6), (8, 7)):
        x = torch.arange(size[0] * size[1]).view(size)
        top, left = (max(side - 5, 0) // 2 for side in size)
        assert torch.equal(center_crop(x, 5), x[top : top + 5, left : left + 5])


def spied(sizes):
    """Return an identity network that notes the sizes of its inputs."""
    network = nn.Identity()
    network.register_forward_pre_hook(lambda _, args: sizes.append(args[0].shape[-2:]))
    return network


def test_the_nearest_multiple_of_a_patch():
    network = spied(sizes := [])
    network.size_multiple = 14
    for side in (14, 20, 21, 35, 6):
        logits_of(network, torch.zeros(1, 1, side, 28))
    assert sizes == [(seen, 28) for seen in (14, 14, 28, 42, 14)]


def test_no_scale_leaves_less_than_a_pixel(toy):
    config = load_config(toy.config, ["evaluation.scales=[0.01]"])
    for mode, seen in {"original": (1, 2), "resize": (1, 1)}.items():
        predictor = Predictor(spied(sizes := []), config, torch.device("cpu"), mode)
        predictor.predict_normalised(torch.zeros(1, 1, 40, 160))
        assert sizes == [seen]


# Ranges of random draws


def test_boxes_reach_both_ends_of_their_ranges_and_the_borders():
    rng, size = np.random.default_rng(0), 321
    boxes = np.stack([draw_box(rng, size) for _ in range(8000)])
    boxes = boxes[boxes[:, 2] > 0]
    (w, h), area = (boxes[:, 2:] - boxes[:, :2]).T, np.prod(boxes[:, 2:] - boxes[:, :2], 1)
    assert boxes.min() == 0 and boxes[:, 2].max() == boxes[:, 3].max() == size
    assert area.min() / size**2 == pytest.approx(0.02, abs=0.002)
    assert area.max() / size**2 == pytest.approx(0.4, abs=0.005)
    assert (h / w).min() == pytest.approx(0.3, abs=0.02)
    assert (h / w).max() == pytest.approx(1 / 0.3, abs=0.15)


def test_sides_too_long_for_a_network():
    assert wants_windows(1501, 321) and not wants_windows(1500, 321)
    assert wants_windows(1601, 640) and not wants_windows(1600, 640), "two and a half crops"
