"""Dice and class weights equal literal transcriptions; class weights follow from the masks."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

from dataset.class_frequency import class_pixels, enet_weights, inverse_weights
from dataset.validation import read_splits
from semi.criterion import build_criterion, dice_loss
from semi.pseudo_labels import (
    PseudoLabel,
    build_consistency_loss,
    consistency_loss,
    dice_consistency_loss,
)
from supervised import SupOnly
from tools.results.runs import Run
from util.config.loading import load_config, parse
from util.config.schema import Config, Criterion
from util.errors import UserError


def dice_literally(logits, label, keep):
    """Compute the Dice loss class by class and pixel by pixel (UniMatch, medical)."""
    p, losses = logits.softmax(1).tolist(), []
    for c in range(logits.shape[1]):
        both = squares = pixels = 0.0
        for b, y, x in keep.nonzero().tolist():
            own = p[b][c][y][x]
            both += own * (label[b, y, x] == c).item()
            squares += own**2
            pixels += (label[b, y, x] == c).item()
        losses.append(1 - (2 * both + 1e-5) / (squares + pixels + 1e-5))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("seed, classes, kept", [(0, 2, 1.0), (1, 4, 0.6), (2, 5, 0.02), (3, 3, 0)])
def test_dice(seed, classes, kept):
    g = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(3, classes, 7, 9, generator=g).requires_grad_()
    label = torch.randint(classes, (3, 7, 9), generator=g)
    keep = torch.rand(3, 7, 9, generator=g) < kept
    loss = dice_loss(logits, label, keep)
    assert loss.item() == pytest.approx(dice_literally(logits, label, keep), abs=1e-6)
    assert (loss.item() == 0) == (not keep.any())
    target = torch.where(keep, label, 255)
    assert build_criterion(Criterion(name="dice"))(logits, target).item() == loss.item()
    pseudo = PseudoLabel(label, keep.float(), keep | True)
    assert dice_consistency_loss(logits, pseudo, 0.95).item() == loss.item()
    ce = F.cross_entropy(logits, target, ignore_index=255).nan_to_num()
    both = build_criterion(Criterion(name="ce_dice"))(logits, target)
    torch.testing.assert_close(both, (ce + loss) / 2)
    both.backward()


def test_pseudo_labels_are_learnt_by_the_loss_of_labels():
    for name in ("ce", "ohem", "dice", "ce_dice"):
        found = build_consistency_loss(Criterion(name=name))
        assert found is (dice_consistency_loss if "dice" in name else consistency_loss)


@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1.25)])
@pytest.mark.parametrize("name", ["ce", "ohem", "ce_dice"])
def test_cross_entropy_is_torchs_and_zero_without_labels(name, weights):
    logits, target = torch.randn(2, 3, 6, 6, requires_grad=True), torch.randint(3, (2, 6, 6))
    target[0, :2] = 255
    options = Criterion(name=name, class_weights=weights, thresh=1)  # OHEM keeps all
    given = None if weights is None else torch.tensor(weights)
    expected = F.cross_entropy(logits, target, given, ignore_index=255)
    if name == "ce_dice":
        expected = (expected + dice_loss(logits, target, target != 255)) / 2
    criterion = build_criterion(options)
    torch.testing.assert_close(criterion(logits, target), expected)
    loss = criterion(logits, torch.full_like(target, 255))
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().sum() == 0
    assert not criterion.state_dict(), "weights belong to the config, not to the checkpoint"


@pytest.mark.parametrize("criterion, message", [
    ({"class_weights": [1, 2]}, "2 numbers for 3 classes"),
    ({"class_weights": [1, 2, 0]}, "greater than 0"),
    ({"class_weights": [1, 2, 3], "name": "dice"}, "dice has none"),
    ({"class_weights": "even"}, "class_weights"),
])  # fmt: skip
def test_invalid_weights_are_refused(criterion, message, toy):
    with pytest.raises(UserError, match=message):
        parse(Config, {**toy.tree, "criterion": criterion}, "config")


def test_class_pixels_are_counted(toy):
    data = load_config(toy.config).data
    listed = read_splits(data, unlabeled=False).labeled
    # 3 masks of 52x44: the first row is ignored, then thirds of 15, 15 and 14 rows.
    assert class_pixels(listed, data).tolist() == [3 * 52 * rows for rows in (14, 15, 14)]


def test_enet_weights():
    found = enet_weights(np.array([50, 50, 0]))
    assert found == pytest.approx([1 / np.log(1.52), 1 / np.log(1.52), 1 / np.log(1.02)], abs=1e-6)


def test_inverse_weights():
    pixels = np.array([600, 300, 100, 0])
    found = np.array(inverse_weights(pixels))
    assert found == pytest.approx([1 / 1.8, 1 / 0.9, 1 / 0.3, 1], abs=1e-6)
    assert (found * pixels)[:3] == pytest.approx(1000 / 3, abs=1e-3)
    assert inverse_weights(np.array([0, 0])) == (1, 1)
    assert inverse_weights(np.array([3, 1])) == (0.666667, 2), "a class of one pixel occurs, too"


@pytest.mark.parametrize(("name", "rule"), [("auto", enet_weights), ("inverse", inverse_weights)])
def test_a_run_keeps_the_weights_it_counted(name, rule, toy, train, tmp_path, capsys):
    toy.change(criterion={"class_weights": name})
    train(SupOnly, toy.argv(tmp_path / "run", "--set", "epochs=1"))
    assert "class weights: " in capsys.readouterr().out
    kept = yaml.safe_load((tmp_path / "run/config.yaml").read_text())["criterion"]["class_weights"]
    assert kept == pytest.approx(rule(np.array([14, 15, 14])), abs=1e-5)
    assert Run(tmp_path / "run").settings["criterion.class_weights"] == name
    train(SupOnly, toy.argv(tmp_path / "run", "--set", "epochs=1"))  # resumes: the same config
