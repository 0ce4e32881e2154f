"""PrevMatch's previous models and its random ensembles."""

import numpy as np
import pytest
import torch

from model.build import build_network
from prevmatch import PrevMatch
from tests.conftest import CLASSES
from util.config.loading import load_config
from util.seed import seed_step


def build(toy, *settings):
    config = load_config(toy.config, list(settings))
    return PrevMatch(build_network(config.model, len(CLASSES)), config)


def mark(method, value):
    with torch.no_grad():
        method.model.classifier.bias.fill_(value)


def marks(method):
    return [state["classifier.bias"][0].item() for state in method.previous]


def test_the_best_models_are_kept_and_the_oldest_goes_first(toy):
    method = build(toy, "method.list_max_len=2", "method.base_only_epoch=2", "epochs=9")
    kept = []
    for epoch, is_best in enumerate([True, True, False, True, True]):
        mark(method, epoch)
        method.after_epoch(epoch, is_best)
        mark(method, -1)  # training must not change the kept copies
        kept.append(marks(method))
    # The model of epoch 1 (counted from 0) is the first that may be kept.
    assert kept == [[], [1], [1], [1, 3], [3, 4]]


def test_a_teacher_is_kept_at_its_own_best(toy, train, tmp_path, monkeypatch):
    scores = iter([50, 50, 60, 40])  # of student and teacher after two epochs
    monkeypatch.setattr("inference.scores.Scores.selected", lambda *_: next(scores))
    settings = ("--set", "method.teacher=ema", "epoch_length=1")
    train(PrevMatch, toy.argv(tmp_path / "run", *settings))
    state = torch.load(tmp_path / "run/latest.pth", weights_only=True)
    assert {name: best["epoch"] for name, best in state["best"].items()} == {
        "model": 2, "model_ema": 1,
    }  # fmt: skip
    assert len(state["method"]["_extra_state"]["previous"]) == 1


def draws(method, unlabeled, monkeypatch):
    """Return the marks of the previous models in an ensemble, and their weights."""
    asked = []

    def spy(model, members, images):
        asked.append([(state["classifier.bias"][0].item(), weight) for state, weight in members])
        return torch.zeros(len(images), len(CLASSES), *images.shape[-2:])

    monkeypatch.setattr("prevmatch.ensemble_logits", spy)
    method.label_by_previous(unlabeled)
    return asked[0]


@pytest.fixture
def unlabeled():
    ignore = torch.zeros(1, 4, 4, dtype=torch.bool)
    return {
        "weak": torch.zeros(1, 3, 4, 4),
        "ignore": ignore,
        "partner_index": torch.zeros(1).long(),
    }


def keep_snapshots(method, count):
    for value in range(count):
        mark(method, value)
        method.keep_snapshot(method.model.state_dict())


def test_random_ensembles(toy, unlabeled, monkeypatch):
    method = build(toy)
    keep_snapshots(method, 5)
    counts, members, first_weights = [], [], []
    for step in range(1000):
        seed_step(0, 0, step)
        drawn = draws(method, unlabeled, monkeypatch)
        models, weights = zip(*drawn, strict=True)
        assert len(set(models)) == len(models) and sum(weights) == pytest.approx(1)
        counts.append(len(models))
        members += models
        if len(models) == 3:
            first_weights.append(weights[0])
    assert np.bincount(counts)[1:] / 1000 == pytest.approx([1 / 3] * 3, abs=0.05)
    assert np.bincount(np.array(members, int)) / len(members) == pytest.approx([0.2] * 5, abs=0.03)
    # Dirichlet(1, 1, 1): each weight is Beta(1, 2), of mean 1/3 and standard deviation sqrt(1/18).
    assert np.mean(first_weights) == pytest.approx(1 / 3, abs=0.04)
    assert np.std(first_weights) == pytest.approx(18**-0.5, abs=0.03)


def test_draws_without_a_random_number_and_by_every_process(toy, unlabeled, monkeypatch):
    method = build(toy, "method.random_select=false")
    for kept, expected in ((2, 2), (5, 3)):
        keep_snapshots(method, kept)
        assert len(draws(method, unlabeled, monkeypatch)) == expected
    drawn, noise = [], []
    for rank in range(3):
        seed_step(7, rank, 123)
        drawn.append(draws(method, unlabeled, monkeypatch))
        noise.append(torch.rand(()).item())
    assert drawn[0] == drawn[1] == drawn[2]
    assert len(set(noise)) == 3  # draws of each process, such as dropout, differ
