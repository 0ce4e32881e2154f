"""Non-finite steps are reported, skipped, and never saved in a checkpoint."""

import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import evaluate
import export
import predict
from engine.nonfinite import MAX_SAVED_BATCHES, NonfiniteMonitor
from engine.optimizer import LossScale, build_optimizer, keeping_statistics_finite
from engine.progress import Means
from engine.trainer import Trainer
from model.checkpoint import load, nonfinite_tensors
from supervised import SupOnly
from tests.conftest import json_lines, saved
from tests.runs import after_steps, assert_equal, latest, poisoned, stopped
from tools import autolabel, publish
from util.config.schema import Optimizer
from util.errors import UserError

OLD_SCALER = {
    "scale": 2.0**-140, "growth_factor": 2.0, "backoff_factor": 0.5,
    "growth_interval": 2**31 - 1, "_growth_tracker": 0,
}  # fmt: skip
"""The state of torch's `GradScaler` after 140 skipped steps."""
CPU, NAN = torch.device("cpu"), float("nan")


def test_nonfinite_gradients_are_reported(three_epochs, train, tmp_path, monkeypatch, capsys):
    step = Trainer.optimize

    def spying(self, raw, number):
        weight = next(self.method.parameters())
        hook = weight.register_hook(lambda g: g * float("nan") if number >= 5 else g)
        scalars = step(self, raw, number)
        hook.remove()
        return scalars

    monkeypatch.setattr(Trainer, "optimize", spying)
    assert (
        stopped(train, SupOnly, three_epochs.argv(tmp_path / "run", "--set", "nonfinite_limit=3"))
        == 2
    )
    captured = capsys.readouterr()
    assert "step 5: gradients not finite; step skipped" in captured.out
    assert "step 8: gradients not finite; 4 steps in a row" in captured.err
    assert not list((tmp_path / "run").glob("nonfinite*"))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_skipped_steps_leave_no_trace(name):
    """Initialise the momenta of SGD even if the first step is skipped; torch would not."""

    def trained(bad_steps):
        torch.manual_seed(0)
        network = nn.Linear(1000, 3)
        optimizer = build_optimizer(network, Optimizer(name=name, lr=0.1))
        good = iter(torch.randn(300, 4, 1000))
        for step in range(300 + len(bad_steps)):
            optimizer.zero_grad()
            x = torch.full((4, 1000), NAN) if step in bad_steps else next(good)
            network(x).square().mean().backward()
            LossScale(CPU, "float32").step(optimizer, torch.tensor(0.0))
        return network.state_dict(), optimizer.state_dict()

    freed = [torch.full((3000,), NAN) for _ in range(50)]
    del freed  # so that memory that is not initialised holds NaN
    assert_equal(trained(range(0, 450, 3)), trained(()))


def test_statistics_are_restored_if_they_become_non_finite():
    norm = nn.BatchNorm1d(2)
    norm.register_buffer("attention_mask", torch.tensor([0, -torch.inf]), persistent=False)
    for value, moved in ((1.0, 0.1), (NAN, 0.1), (1.0, 0.19)):
        with keeping_statistics_finite(norm):
            norm(torch.full((4, 2), value))
        torch.testing.assert_close(norm.running_mean, torch.full((2,), moved))
    assert norm.attention_mask.tolist() == [0, -torch.inf]


def test_a_replaced_buffer_is_restored_if_it_becomes_non_finite():
    method = nn.Module()
    method.register_buffer("tau", torch.tensor(0.5))
    for value, expected in ((0.5, 1.0), (NAN, 1.0), (0.25, 1.25)):
        with keeping_statistics_finite(method):
            method.tau = method.tau + value
        assert method.tau == expected


def test_statistics_are_restored_beside_a_buffer_of_another_size():
    norm = nn.BatchNorm1d(2)
    norm.register_buffer("cache", torch.zeros(1), persistent=False)
    with keeping_statistics_finite(norm):
        norm.cache = torch.zeros(3)
        norm(torch.full((4, 2), NAN))
    assert norm.running_mean.tolist() == [0, 0] and norm.cache.tolist() == [0, 0, 0]


def test_gradients_whose_norm_overflows_are_skipped():
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=1.0, fused=True)
    weight.grad = torch.full((2,), 1e20)
    LossScale(CPU, "float32").step(optimizer, torch.tensor(0.0))
    assert weight.tolist() == [1, 1]


def test_the_scale_of_float16():
    """Overflow halves the scale down to a floor; a non-finite loss leaves it."""
    scale, good, bad = LossScale(CPU, "float16"), torch.tensor(1.0), torch.tensor(NAN)
    for _ in range(40):
        scale.update(loss=bad, grad_norm=bad)
    assert scale.state() == {"scale": 65536, "_growth_tracker": 0}
    for step in range(100):
        scale.update(loss=good, grad_norm=bad)
        assert scale.state()["scale"] == max(65536 / 2 ** (step + 1), 1)
    for _ in range(LossScale.GROWTH_INTERVAL - 1):
        scale.update(loss=good, grad_norm=good)
    resumed = LossScale(CPU, "float16")
    resumed.load_state(scale.state())
    resumed.update(loss=good, grad_norm=good)
    assert resumed.state() == {"scale": 2, "_growth_tracker": 0}
    assert resumed.scale(torch.tensor(3.0)) == 6


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_scaled_step_is_the_plain_one(name):
    weights = []
    for precision in ("float32", "float16"):
        scale, weight = LossScale(CPU, precision), nn.Parameter(torch.ones(2))
        weight.grad = torch.tensor([0.1, 0.3]) * (1 if scale.value is None else scale.value)
        optimizer = build_optimizer(nn.ParameterList([weight]), Optimizer(name=name))
        norm = scale.step(optimizer, torch.tensor(1.0))
        assert norm.item() == pytest.approx(0.1**0.5)
        weights.append(weight)
    assert torch.equal(*weights) and not torch.equal(weights[0], torch.ones(2))


def test_ranks_adapt_the_scale_alike(monkeypatch):
    """Keep the scale if the loss is non-finite on another rank only."""
    scale = LossScale(CPU, "float16")
    monkeypatch.setattr("util.distributed.all_reduce", lambda x, op: torch.ones_like(x))
    scale.update(loss=torch.tensor(1.0), grad_norm=torch.tensor(NAN))
    assert scale.state()["scale"] == 65536


def test_an_old_checkpoint_with_a_decayed_scale_resumes(three_epochs, train, tmp_path):
    argv = three_epochs.argv(tmp_path / "run", "--set", "precision=float32")
    train(SupOnly, argv)
    last = latest(tmp_path / "run")
    (tmp_path / "run/latest.pth").unlink()
    old = saved(tmp_path / "run/previous.pth")
    old["scaler"] = OLD_SCALER
    del old["nonfinite"]
    torch.save(old, tmp_path / "run/previous.pth")
    train(SupOnly, argv)
    assert_equal(latest(tmp_path / "run")["method"], last["method"])
    scale = LossScale(CPU, "float16")
    scale.load_state(OLD_SCALER)
    assert scale.state()["scale"] == 65536


@pytest.mark.parametrize("save_every", ["null", 1])
def test_a_checkpoint_is_not_replaced_by_weights_that_are_not_finite(
    save_every, three_epochs, train, tmp_path, monkeypatch, capsys
):
    def spoil_weights(trainer, _, number):
        if number == 7:
            next(trainer.method.parameters()).data[0] = NAN

    after_steps(monkeypatch, spoil_weights)
    argv = three_epochs.argv(tmp_path / "run", "--set", f"save_every={save_every}")
    assert stopped(train, SupOnly, argv) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "latest.pth: not written, as method.model.backbone.conv1.0.weight hold" in captured.err
    assert "epoch 2/3 model" not in captured.out  # not scored either
    state = latest(tmp_path / "run")
    assert state["epoch"] == 1 and not nonfinite_tensors(state)


def test_steps_in_a_row_are_counted_across_a_resume(
    three_epochs, training_error, tmp_path, monkeypatch
):
    """Count bad steps from step 8 on, the last but one before a checkpoint."""
    poisoned(monkeypatch, set(range(8, 15)))
    for _ in range(2):
        argv = three_epochs.argv(tmp_path / "run", "--set", "nonfinite_limit=3")
        assert "step 11" in training_error(SupOnly, argv)
        assert latest(tmp_path / "run")["nonfinite"] == 2


def test_means_are_those_of_finite_values(three_epochs, train, tmp_path, monkeypatch):
    """Also across a resume, and of an epoch without finite values."""
    means = Means()
    for loss in (1.0, NAN, 4.0, float("inf")):
        means.add({"loss": torch.tensor(loss), "grad_norm": torch.tensor(NAN)})
        means = Means(means.state())
    assert means.fetch() == ({"loss": 2.5}, 4)
    old = Means({"sums": {"loss": torch.tensor(6.0), "grad_norm": torch.tensor(9.0)}, "count": 3})
    assert old.fetch() == ({"loss": 2.0, "grad_norm": 3.0}, 0)
    poisoned(monkeypatch, {1, 3, *range(5, 10)})
    train(SupOnly, three_epochs.argv(tmp_path / "run"))
    records = json_lines(tmp_path / "run/metrics.jsonl")
    assert [record.get("skipped") for record in records] == [2, 5, None]
    assert records[0]["train"]["loss"] > records[2]["train"]["loss"] and not records[1]["train"]


def monitor_of(folder, load_batch=lambda step: {"step": step}, limit=1000):
    loader = SimpleNamespace(batch_at=load_batch)
    return NonfiniteMonitor(limit, SimpleNamespace(path=folder), loader)


def bad_steps(monitor, count):
    for step in range(count):
        monitor.add(step, {"loss": torch.tensor(NAN), "grad_norm": torch.tensor(NAN)})
        monitor.check()


def test_saved_batches_are_few(tmp_path, caplog):
    bad_steps(monitor_of(tmp_path), 20)
    assert len(list(tmp_path.iterdir())) == MAX_SAVED_BATCHES == 10
    assert caplog.text.count("10 batches are saved, no more will be") == 1
    assert caplog.text.count("step skipped") == 20


def test_a_batch_that_cannot_be_saved_ends_no_run(tmp_path, caplog):
    def unreadable(step):
        raise UserError("a.jpg: no such file")

    bad_steps(monitor_of(tmp_path / "missing"), 1)
    bad_steps(monitor_of(tmp_path, unreadable), 1)
    assert caplog.text.count("step skipped; its batch could not be saved") == 2
    assert not list(tmp_path.iterdir())


def test_gradients_that_vanish_are_reported(tmp_path, caplog):
    monitor = monitor_of(tmp_path)
    for step, (loss, norm) in enumerate([(1, 1), (0, 0), (1, 0), (1, 0), (1, 1)]):
        monitor.add(step, {"loss": torch.tensor(loss), "grad_norm": torch.tensor(norm)})
    monitor.check()
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert "step 2: all gradients are 0 although the loss is not" in caplog.text


def test_a_step_that_was_taken_is_not_called_left_out(tmp_path, caplog):
    monitor = monitor_of(tmp_path)
    monitor.add(3, {"loss": torch.tensor(NAN), "grad_norm": torch.tensor(1.0)})
    monitor.in_a_row = 4
    monitor.check()
    assert monitor.in_a_row == 5
    assert "step 3: not finite: loss; step taken" in caplog.text


def test_ranks_judge_alike(tmp_path, caplog, monkeypatch):
    """Count a step whose loss is non-finite on another rank only."""
    monkeypatch.setattr("util.distributed.all_reduce", lambda x, op: torch.tensor([[0, 1, 1]]))
    monitor = monitor_of(tmp_path)
    monitor.add(3, {"loss": torch.tensor(1.0), "grad_norm": torch.tensor(NAN)})
    monitor.check()
    assert monitor.in_a_row == 1
    assert "step 3: not finite: loss; " in caplog.text
    assert not list(tmp_path.iterdir())


def spoil(path, name):
    """Write NaN into one value of a tensor of a checkpoint."""
    state = saved(path)
    state["method"][name].view(-1)[0] = NAN
    torch.save(state, path)


def test_weights_that_are_not_finite_are_refused(three_epochs, train, user_error, tmp_path):
    folder = tmp_path / "run"
    train(SupOnly, three_epochs.argv(folder))
    spoil(folder / "best.pth", name := "model.backbone.conv1.0.weight")
    photos, out = three_epochs.root / "images", tmp_path / "out"
    for module, more in {
        evaluate: ["--config", three_epochs.config, "--checkpoint", folder],
        predict: ["--checkpoint", folder, "--images", photos, "--save-path", out],
        export: ["--checkpoint", folder, "--format", "onnx", "--out", out],
        publish: [folder, "--out", out, "--license", "mit"],
        autolabel: ["--checkpoint", folder / "best.pth", "--out", out],
    }.items():
        error = user_error(module, *more)
        assert f"{folder}/best.pth: expected finite weights" in error and name in error, module


def test_names_of_bad_tensors_in_odd_places(tmp_path):
    bad = torch.tensor([1.0, -float("inf")])
    state = {"a": [torch.ones(2), {"b": bad}], "c": bad.half(), "empty": torch.ones(0)}
    state["n"] = bad > 0
    state["again"] = state["a"]
    assert nonfinite_tensors(state) == ["a.1.b", "c"]
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"x\.pth: .* in a\.1\.b, c\. Fix"):
        load(tmp_path / "x.pth")
