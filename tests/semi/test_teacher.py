"""EMA teachers of UniMatch V2, and of other methods with `teacher: ema`."""

import shutil

import pytest
import torch
from torch import nn

from corrmatch import CorrMatch
from fixmatch import FixMatch
from inference.segmenter import Segmenter
from model.build import build_network
from model.checkpoint import save_atomically
from model.trained import load_network
from prevmatch import PrevMatch
from rankmatch import RankMatch
from semi.ema import frozen_copy, update_ema
from tests.batches import raw_batch
from unimatch import UniMatch
from unimatch_v2 import UniMatchV2
from util.config.loading import load_config

OPTIONAL = (FixMatch, UniMatch, PrevMatch, RankMatch, CorrMatch)
EMA = {kind: ["method.teacher=ema"] for kind in OPTIONAL} | {UniMatchV2: []}
with_teacher = pytest.mark.parametrize("kind", EMA)


def build(kind, toy, *settings):
    config = load_config(toy.config, [*EMA[kind], *settings])
    return kind(build_network(config.model, 3).train(), config)


def test_follow_literally():
    student = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    teacher = frozen_copy(student)
    expected = {k: v.double() for k, v in teacher.state_dict().items()}
    for iteration in range(400):
        with torch.no_grad():
            for value in (*student.parameters(), student[1].running_mean, student[1].running_var):
                value.normal_()
            student[1].num_batches_tracked += 1
        update_ema(teacher, student, iteration, 0.996)
        ratio = min(1 - 1 / (iteration + 1), 0.996)
        for k, v in student.state_dict().items():
            expected[k] = ratio * expected[k] + (1 - ratio) * v.double()
        if iteration == 0:  # teacher and student are equal after the first step
            own = teacher.state_dict()
            assert all(torch.equal(own[k], v) for k, v in student.state_dict().items())
    for k, v in teacher.state_dict().items():
        if v.is_floating_point():
            torch.testing.assert_close(v, expected[k].float(), rtol=1e-5, atol=1e-6)
    assert teacher[1].num_batches_tracked == student[1].num_batches_tracked == 400


@with_teacher
def test_a_step_leaves_the_teacher_alone_and_after_it_the_teacher_follows(kind, toy):
    method = build(kind, toy)
    before = {k: v.clone() for k, v in method.model_ema.state_dict().items()}
    loss, _ = method(raw_batch(2, partner=False, views=kind.strong_views))
    loss.backward()
    assert not method.model_ema.training and method.model.training
    assert all(torch.equal(v, before[k]) for k, v in method.model_ema.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in method.model_ema.parameters())
    with torch.no_grad():
        method.model.classifier.weight.zero_()
    method.after_step(0)
    assert method.model_ema.classifier.weight.abs().sum() == 0
    assert list(method.eval_models()) == ["model", "model_ema"]
    if kind in OPTIONAL:
        alone = build(kind, toy, "method.teacher=self")
        assert alone.model_ema is None and list(alone.eval_models()) == ["model"]


@with_teacher
def test_labels_are_the_teachers(kind, toy):
    """If the teacher is certain of class 2 everywhere, class 2 is the target everywhere."""
    method = build(kind, toy, "conf_thresh=0.99")
    batch = raw_batch(2, partner=True, views=kind.strong_views)
    with torch.no_grad():
        method.model_ema.classifier.weight.zero_()
        method.model_ema.classifier.bias.copy_(torch.tensor([0.0, 0.0, 50.0]))
        for bias in (0.0, 30.0):
            method.model.classifier.weight.zero_()
            method.model.classifier.bias.copy_(torch.tensor([0.0, 0.0, bias]))
            _, scalars = method(batch)
            # ln 3 for a uniform student, 0 for one that agrees; all pixels are counted.
            assert scalars["s"].item() == pytest.approx(0 if bias else 1.0986, abs=1e-3)
            assert scalars["mask_ratio"].item() == 1


def test_the_network_may_label_itself_while_its_average_follows(toy):
    """Use labels of the network itself, as UniMatch V2 does for change detection."""
    method = build(UniMatchV2, toy, "conf_thresh=0.99", "method.teacher=self")
    batch = raw_batch(2, partner=True, views=2)
    assert method.labeler is method.model and list(method.eval_models()) == ["model", "model_ema"]
    with torch.no_grad():
        method.model_ema.classifier.bias.copy_(torch.tensor([0.0, 0.0, 50.0]))
        method.model.classifier.weight.zero_()
        method.model.classifier.bias.copy_(torch.tensor([0.0, 30.0, 0.0]))
        _, scalars = method(batch)
        assert scalars["s"].item() == pytest.approx(0, abs=1e-3)
        assert scalars["mask_ratio"].item() == 1 and method.model.training
        method.after_step(0)
    assert torch.equal(method.model_ema.classifier.bias, method.model.classifier.bias)


@pytest.mark.parametrize("kind", [FixMatch, UniMatchV2])
def test_both_are_scored_and_kept_and_load_by_name(kind, toy, train, tmp_path):
    toy.change(epochs=1, epoch_length=2, method={"teacher": "ema"} if kind in OPTIONAL else {})
    run = tmp_path / "run"
    train(kind, toy.argv(run))
    state = torch.load(run / "latest.pth", weights_only=True)
    assert set(state["history"][-1]["scores"]) == set(state["best"]) == {"model", "model_ema"}
    assert (run / "best.pth").exists() and (run / "best_model_ema.pth").exists()
    config = load_config(toy.config)
    student, teacher = (
        load_network(config.model, config.data, run / "latest.pth", which)
        for which in ("model", "model_ema")
    )
    assert not torch.equal(student.classifier.weight, teacher.classifier.weight)
    assert torch.equal(teacher.classifier.weight, state["method"]["model_ema.classifier.weight"])
    best = {  # without `which`: the network that the file is the best of
        name: Segmenter.load(run / name, device="cpu").predictor.network.classifier.weight
        for name in ("", "best.pth", "best_model_ema.pth")
    }
    shutil.copy(run / "best.pth", run / "best_82.pth")
    own_name = Segmenter.load(run / "best_82.pth", device="cpu").predictor.network
    assert torch.equal(own_name.classifier.weight, best["best.pth"])
    assert torch.equal(best[""], best["best.pth"])
    assert not torch.equal(best["best.pth"], best["best_model_ema.pth"])
    assert torch.equal(best["best_model_ema.pth"], teacher.classifier.weight)
    # UniMatch V2's published checkpoints have this form.
    published = {
        name: {f"module.{k}": v for k, v in network.state_dict().items()}
        for name, network in (("model", student), ("model_ema", teacher))
    }
    save_atomically(published, tmp_path / "published.pth")
    again = load_network(config.model, config.data, tmp_path / "published.pth", "model_ema")
    assert torch.equal(again.classifier.weight, teacher.classifier.weight)
