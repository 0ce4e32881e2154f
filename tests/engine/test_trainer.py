"""Whole trainings: schedule, parameter groups, files of a run, dry run, precision."""

import copy
import functools
import io
import sys
from collections import deque

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch._dynamo.utils import counters
from tqdm import tqdm

from corrmatch import CorrMatch
from engine.command import build_trainer
from engine.contract import checked_output, require_own_name, require_registered
from engine.cost import MEMORY_KINDS
from engine.dry_run import SMALL_NETWORKS, Measurements, smaller_settings
from engine.method import Method
from engine.optimizer import LossScale, build_optimizer, load_optimizer, set_poly_lr
from engine.progress import BAR, Means, Progress
from engine.run_dir import RunDir
from fixmatch import FixMatch
from model import acceleration
from model.build import another_network, build_network
from prevmatch import PrevMatch
from supervised import SupOnly
from tests.conftest import json_lines, saved
from tests.prototypes import Prototypes
from util import distributed
from util.config.loading import load_config
from util.config.schema import Optimizer
from util.errors import UserError
from util.precision import autocast, cpu_flags, precision_on


def test_poly_schedule_decays_after_the_step(toy):
    network = build_network(load_config(toy.config).model, 3)
    optimizer = build_optimizer(network, Optimizer(lr=0.001, lr_multi=10))
    rates = []
    for step in range(5):
        set_poly_lr(optimizer, step, 5, 0.9)
        rates.append([group["lr"] for group in optimizer.param_groups])
    expected = [1, 1, *((1 - i / 5) ** 0.9 for i in (1, 2, 3))]
    for (backbone, head), factor in zip(rates, expected, strict=True):
        assert backbone == pytest.approx(0.001 * factor) and head == pytest.approx(0.01 * factor)


def test_momentum_takes_the_layout_of_the_weights(tmp_path):
    """A run is saved without `channels_last` and resumed with it."""
    torch.manual_seed(0)
    x, finals = torch.randn(2, 3, 8, 8), []
    first = torch.nn.Conv2d(3, 4, 3)
    optimizer = build_optimizer(first, Optimizer())
    first(x).square().sum().backward()
    optimizer.step()
    for layout in (torch.contiguous_format, torch.channels_last):
        second = copy.deepcopy(first).to(memory_format=layout)
        resumed = build_optimizer(second, Optimizer())
        load_optimizer(resumed, optimizer.state_dict(), tmp_path)
        resumed.zero_grad()
        second(x).square().sum().backward()
        resumed.step()
        finals.append(second.weight)
    torch.testing.assert_close(*finals)


def test_whatever_a_method_owns_is_trained(toy, train, tmp_path):
    train(Prototypes, toy.argv(tmp_path, "--set", "epoch_length=1"))
    first, last = (saved(tmp_path / f"{name}.pth")["method"] for name in ("previous", "latest"))
    for name in ("head.weight", "prototypes", "model_ema.classifier.weight"):
        assert not torch.equal(first[name], last[name]), name


def test_what_a_run_leaves(toy, train, tmp_path, capsys):
    train(CorrMatch, toy.argv(tmp_path, "--seed", "5"))
    output = capsys.readouterr().out
    assert f"written  {tmp_path}: best.pth" in output
    assert f"next     python evaluate.py --checkpoint {tmp_path}\n" in output
    history = json_lines(tmp_path / "metrics.jsonl")
    assert [record["epoch"] for record in history] == [1, 2]
    assert history[1]["steps"] == 4  # 5 unlabelled images, batches of 2
    losses = {"loss", "x", "x_corr", "s", "kl", "fp", "corr", "mask_ratio", "threshold"}
    losses |= {"grad_norm"}
    assert set(history[0]["train"]) == losses
    scores = [record["scores"]["model"] for record in history]
    assert len(scores[0]["iou"]) == 3
    labels = [score["pseudo_labels"] for score in scores]
    assert 0 <= labels[1]["kept"] <= 100 and len(labels[1]["class_precision"]) == 3
    assert sum(labels[1]["bin_pixels"]) == pytest.approx(100)
    assert load_config(tmp_path / "config.yaml").seed == 5
    (started,) = json_lines(tmp_path / "starts.jsonl")
    assert {"command", "python", "torch", "device", "commit"} <= started.keys()
    log = (tmp_path / "log.txt").read_text()
    assert "mIoU" in log and "pseudo-labels by model: " in log

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {f"train/{name}" for name in losses | {"lr"}} <= tags
    assert {"val/model/mIoU", "val/model_iou/sky"} <= tags
    for name in ("threshold", "kept", "ece"):
        values = [event.value for event in events.Scalars(f"val/model_pseudo_labels/{name}")]
        assert values == pytest.approx([label[name] for label in labels])

    state = saved(tmp_path / "latest.pth")
    assert labels[1]["threshold"] == state["method"]["tau"].item() != 0.85
    best = saved(tmp_path / "best.pth")
    assert best["epoch"] == best["best"]["model"]["epoch"]


@pytest.mark.parametrize(
    ("kind", "workers", "seconds", "bound"),
    [(CorrMatch, "0 data workers", 0.0, "computing"), (SupOnly, "1 data worker", 1e6, "loading")],
)
def test_dry_run(kind, workers, seconds, bound, toy, train, tmp_path, capsys, monkeypatch):
    """Name loading as the bottleneck if data workers are slow, and warn of days."""
    monkeypatch.setattr("engine.dry_run._seconds_to_load", lambda _: seconds)
    train(kind, toy.argv(tmp_path / "run", "--dry-run", "--set", f"data.workers={workers[0]}"))
    out = capsys.readouterr().out
    for part in ("dry run: passed", "every GPU of at least 8 GiB", *MEMORY_KINDS):
        assert part in out
    assert out.count("3 validation images, expected at least 10") == 1
    assert f"{seconds:.3f} s in one process; the run has {workers}\n" in out
    assert f"bound by {bound}" in out
    assert ("would take more than a day" in out) == (bound == "loading")
    assert out.endswith("next     the same command without --dry-run\n")
    assert not (tmp_path / "run").exists()


class Unpictured(FixMatch):
    """A method whose panels and threshold fail, which training needs at validations only."""

    def panels(self, batch):
        raise ZeroDivisionError


class ByClass(FixMatch):
    threshold = property(lambda self: torch.ones(3))


@pytest.mark.parametrize("kind, error", [(Unpictured, ZeroDivisionError), (ByClass, ValueError)])
def test_dry_run_calls_what_validations_need(kind, error, toy, train, tmp_path):
    with pytest.raises(error):
        train(kind, toy.argv(tmp_path / "run", "--dry-run", "--set", "log.pictures=1"))


def test_dry_run_times_previous_models(toy, train, tmp_path, monkeypatch):
    labelled = []
    label = PrevMatch.label_by_previous
    monkeypatch.setattr(
        PrevMatch, "label_by_previous", lambda *args: labelled.append(1) or label(*args)
    )
    monkeypatch.setattr("engine.dry_run.log_gpu_requirements", lambda *_, **__: None)
    train(PrevMatch, toy.argv(tmp_path / "run", "--dry-run"))
    assert labelled


def test_dry_run_offers_settings_that_take_a_day(toy, monkeypatch):
    """Time scales with the epochs, and with the arithmetic of a step."""
    settings = ["epochs=100", "crop_size=321", "model.backbone=resnet50", "batch_size=4"]
    config = load_config(toy.config, settings)
    found = Measurements(loss=1, step=60, load=0, image=0, image_load=0, workers=1)  # 10 days
    shorter, smaller, _ = smaller_settings(SupOnly, config, found, steps=144, images=5)
    assert shorter == "  --set epochs=10: about 24 h"
    small = load_config(toy.config, smaller.partition(": ")[0].split()[1:])
    assert small.model.backbone == "resnet18" and small.crop_size == 193 and small.epochs > 40
    monkeypatch.delitem(SMALL_NETWORKS, "deeplabv3plus")  # as a network that a user adds
    _, smaller, _ = smaller_settings(SupOnly, config, found, steps=144, images=5)
    assert smaller.startswith("  --set crop_size=192 epochs=")


def test_progress_lines_fit_a_terminal_and_are_explained_once(
    toy, train, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("engine.progress.SECONDS_BETWEEN_LINES", -1.0)
    monkeypatch.setattr("engine.progress.FETCH_EVERY", 2)
    train(CorrMatch, toy.argv(tmp_path / "run", "--set", "epoch_length=4"))
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if str(tmp_path) not in line]
    assert [line for line in lines if len(line) > 80] == []
    assert out.count("step 2/4") == 2 and "step 4/4" not in out  # the epoch's own line follows
    assert out.count("loss: weighted sum of the losses; x: supervised") == 1


def test_seconds_of_a_resumed_epoch_count_all_of_its_steps():
    progress = Progress(None, epoch=0, epochs=10, steps=10, done=8, legend=False)
    progress._begin -= 60
    record = progress.summary(Means())
    assert record["step_seconds"] == pytest.approx(30, rel=0.01)
    assert record["seconds"] == pytest.approx(300, rel=0.01)


def test_a_bar_shows_the_time_left_in_all_epochs():
    progress = Progress(
        None, epoch=0, epochs=10, steps=10, done=2, legend=False, validation_seconds=120
    )
    progress._begin -= 60  # 30 s a step, 96 steps left
    bar = tqdm(total=10, initial=2, file=io.StringIO(), bar_format=BAR, ncols=80)
    bar.n = 4
    bar.set_postfix_str(progress._postfix(3, {"loss": 1.0, "x": 2.0, "long": 3.0, "s": 4.0}))
    assert str(bar).endswith("| 4/10, 50 min left, loss=1.00 x=2.00 s=4.00")
    assert len(str(bar)) <= 80


def test_validations_left_take_as_long_as_the_last_one(toy, tmp_path):
    config = load_config(toy.config, ["epochs=7", "evaluation.every=3"])
    trainer = build_trainer(SupOnly, config, torch.device("cpu"), RunDir(tmp_path), "never")
    trainer.epoch, trainer.history = 2, [{"validation_seconds": 5.0}, {}]
    assert trainer._validation_seconds_left() == 15  # after epochs 3, 6 and 7


@pytest.mark.parametrize(
    "overrides",
    [
        ["precision=bfloat16", "cutmix_partner=self", "evaluation.every=2", "epoch_length=1",
         "criterion.thresh=0.5"],
        ["criterion={name: ohem, min_kept: 50}", "cutmix_partner=batch", "batch_size=8",
         "micro_batch=2", "method.thresh_init=null", "conf_thresh=0", "model.multi_grid=false",
         "model.output_stride=8", "evaluation.center_crop_epochs=9"],
    ],
    ids=["bfloat16", "micro-batches"],
)  # fmt: skip
def test_settings(overrides, toy, train, tmp_path, capsys):
    """Ignore scores of the cheap mode for the best checkpoint; the last epoch never uses it."""
    train(CorrMatch, toy.argv(tmp_path / "run", "--set", *overrides))
    shown = capsys.readouterr().out
    warns = "center_crop_epochs: found 9 for 2 epochs; only the last" in shown
    assert warns == ("evaluation.center_crop_epochs=9" in overrides)
    assert ("criterion.thresh: 0.5 has no effect" in shown) == ("criterion.thresh=0.5" in overrides)
    first, last = json_lines(tmp_path / "run/metrics.jsonl")
    assert 0 < last["train"]["loss"] < 100 and last["scores"]["model"]["mode"] == "original"
    if "scores" in first:
        assert first["scores"]["model"]["mode"] == "center_crop"
    assert saved(tmp_path / "run/best.pth")["best"]["model"]["epoch"] == 2


def test_one_image_per_gpu_is_enough_where_batch_norm_counts_over_all(monkeypatch):
    """Accept a batch of 8 on 8 GPUs, as published."""
    monkeypatch.setattr(distributed, "world_size", lambda: 8)
    assert distributed.batchnorm_processes(torch.device("cuda")) == 8
    assert distributed.batchnorm_processes(torch.device("cpu")) == 1


@pytest.mark.parametrize(
    ("kind", "more"), [(CorrMatch, ["method.teacher=ema", "epochs=1"]), (PrevMatch, [])]
)
def test_compiled_parts_and_channels_last_change_nothing_but_speed(
    kind, more, toy, train, tmp_path, monkeypatch
):
    """Names of the state, resuming, teachers and previous models; no C++ compiler is needed."""
    backend = functools.partialmethod(torch.nn.Module.compile, backend="eager")
    monkeypatch.setattr(torch.nn.Module, "compile", backend)
    monkeypatch.setenv("CXX", sys.executable)  # only looked for
    fast = ["compile=true", "channels_last=true", "tf32=false", "epoch_length=1", "log.pictures=1"]
    states = []
    for run, settings in (("plain", ["epoch_length=1"]), ("fast", fast)):
        train(kind, toy.argv(tmp_path / run, "--set", *settings, *more))
        states.append(saved(tmp_path / run / "latest.pth"))
    plain, found = (state["method"] for state in states)
    assert plain.keys() == found.keys()
    for name, value in plain.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(found[name], value, atol=1e-3, rtol=1e-2)
    assert states[0]["history"][0]["train"]["loss"] == pytest.approx(
        states[1]["history"][0]["train"]["loss"], rel=1e-3
    )
    weight = next(v for v in found.values() if getattr(v, "ndim", 0) == 4 and v.shape[1] > 1)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    movable = ["epoch_length=1", "tf32=false", *more]
    train(kind, toy.argv(tmp_path / "fast", "--set", *movable))


def test_all_parts_stay_compiled(monkeypatch):
    """Three parts with four input sizes each: more graphs than torch keeps by default."""
    backend = functools.partialmethod(torch.nn.Module.compile, backend="eager", dynamic=False)
    monkeypatch.setattr(torch.nn.Module, "compile", backend)
    torch.compiler.reset()
    parts = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.ReLU(), torch.nn.Sigmoid())
    acceleration.compile_parts(torch.nn.ModuleList([parts]))
    counters["frames"].clear()
    for size in range(4, 8):
        parts(torch.zeros(1, 1, size, size))
    assert counters["frames"]["ok"] == counters["frames"]["total"] == 12


CPU = torch.device("cpu")
FLAGS = {
    "amx": "processor : 0\nflags : fpu avx512f amx_bf16 amx_tile\n",
    "avx512_bf16": "flags\t\t: avx512f avx512_bf16\n",
    "arm": "processor\t: 0\nFeatures\t: fp asimd bf16\n",
    "neither": "flags : fpu avx512f avx2\nbugs : amx_bf16\n",
    "not all CPUs": "flags : avx512_bf16\n\nflags : avx2\n",
    "no file": None,
}


def test_automatic_precision(tmp_path, monkeypatch):
    for name, text in FLAGS.items():
        file = tmp_path / f"cpuinfo of {name}"  # the flags of a path are cached
        if text is not None:
            file.write_text(text)
        flags, able = cpu_flags(file), name in ("amx", "avx512_bf16", "arm")
        monkeypatch.setattr("util.precision.cpu_flags", lambda flags=flags: flags)
        assert precision_on(CPU, "auto") == ("bfloat16" if able else "float32"), name
        assert autocast(CPU, "auto")._enabled == able
    for given in ("float32", "bfloat16", "float16"):
        assert precision_on(CPU, given) == given
        assert (LossScale(CPU, given).value is not None) == (given == "float16")
    for able in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda able=able, **_: able)
        assert precision_on(torch.device("cuda"), "auto") == ("bfloat16" if able else "float16")


@pytest.mark.parametrize(
    ("given", "device", "precision", "expected"),
    [
        ("auto", "cuda", "float32", True),
        ("auto", "cpu", "bfloat16", True),
        ("auto", "cpu", "float32", False),
        (True, "cpu", "float32", True),
        (False, "cuda", "bfloat16", False),
    ],
)
def test_automatic_layout(given, device, precision, expected, toy):
    config = load_config(toy.config, [f"channels_last={given}", f"precision={precision}"])
    assert acceleration.is_channels_last(config, torch.device(device)) is expected


def test_a_run_keeps_the_precision_it_found(toy, train, training_error, tmp_path, monkeypatch):
    """Resuming is refused on a machine where auto resolves to another precision."""
    toy.change(precision="auto", channels_last="auto", epoch_length=1)
    monkeypatch.setattr("util.precision.cpu_flags", lambda: {"amx_bf16"})
    train(SupOnly, toy.argv(tmp_path / "run"))
    state = saved(tmp_path / "run/latest.pth")
    assert state["config"]["precision"] == "bfloat16"
    assert "precision: bfloat16" in (tmp_path / "run/config.yaml").read_text()
    weight = next(v for v in state["method"].values() if v.ndim == 4 and v.shape[1] > 1)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    train(SupOnly, toy.argv(tmp_path / "run"))
    monkeypatch.setattr("util.precision.cpu_flags", set)
    assert "precision (bfloat16 -> float32)" in training_error(SupOnly, toy.argv(tmp_path / "run"))


@pytest.mark.parametrize("device, variable", [("cpu", "CXX"), ("cuda", "CC")])
def test_compiling_needs_a_compiler(device, variable, monkeypatch):
    device = torch.device(device)
    monkeypatch.setenv(variable, f"{sys.executable} -O")
    acceleration.require_compiler(device)
    monkeypatch.setenv(variable, "no-such-compiler")
    with pytest.raises(UserError, match=r"^compile: no compiler found; expected no-such-compiler "):
        acceleration.require_compiler(device)
    monkeypatch.delenv(variable)
    monkeypatch.setenv("PATH", "")
    expected = "gcc or clang" if device.type == "cuda" else "(g|clang)[+]{2}"
    with pytest.raises(UserError, match=f"expected {expected} in PATH"):
        acceleration.require_compiler(device)


def test_without_a_compiler_a_run_ends_before_training(toy, training_error, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    error = training_error(SupOnly, toy.argv(tmp_path / "run", "--set", "compile=true"))
    assert error.startswith("error: compile: no compiler found")


@pytest.mark.parametrize("name", ["teacher", "model_teacher"])
def test_a_network_whose_checkpoint_would_load_another_one_is_refused(name, toy, train, tmp_path):
    class Misnamed(Method):
        def eval_models(self):
            self.teacher = self.model
            return {"model": self.model, name: self.teacher}

    with pytest.raises(ValueError, match=f"Misnamed.eval_models: found {name}, expected model or"):
        train(Misnamed, toy.argv(tmp_path / "run"))


class Strange(Method):
    """A method whose second network has other weights than the first."""

    def __init__(self, model, config):
        super().__init__(model, config)
        narrow = config.model.model_copy(update={"channels": 4})
        self.model_b = build_network(narrow, config.num_classes)

    def eval_models(self):
        return {"model": self.model, "model_b": self.model_b}


class Grown(Method):
    """A method that adds a layer to its network."""

    def __init__(self, model, config):
        model.extra = torch.nn.Conv2d(2, 2, 1)
        super().__init__(model, config)


class Unscored(Strange):
    """A method whose pseudo-labels come from a network that is not validated."""

    labeler = property(lambda self: self.model_b)

    def eval_models(self):
        return {"model": self.model}


class Unregistered(Method):
    """A method whose heads are in plain lists."""

    def __init__(self, model, config):
        super().__init__(model, config)
        self._heads = {"a": [torch.nn.Conv2d(2, 2, 1)]}


class Remembering(Method):
    """A method that keeps tensors in a queue."""

    def __init__(self, model, config):
        super().__init__(model, config)
        self.queue = deque([torch.zeros(2)])


def test_a_method_may_save_tensors_itself(toy):
    config = load_config(toy.config)
    network = build_network(config.model, config.num_classes)
    saving = type("Saving", (Remembering,), {"get_extra_state": lambda self: [*self.queue]})
    require_registered(saving(network, config))


@pytest.mark.parametrize(
    "kind, message",
    [
        (Unregistered, "Unregistered._heads: found tensors or modules that would be neither"),
        (Remembering, "Remembering.queue: found tensors or modules that would be neither"),
        (Strange, "Strange.eval_models: model_b has other weights .*: head.b0.0.weight, .* Fix"),
        (Grown, "Grown.eval_models: model has other weights .*: extra.weight, extra.bias. Fix"),
        (Unscored, "Unscored.labeler: found a network that is not validated, expected .*: model. "),
    ],
)
def test_networks_that_validation_cannot_use_are_refused(kind, message, toy, train, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(kind, toy.argv(tmp_path / "run"))


@pytest.mark.parametrize(
    "output, message",
    [
        (lambda x: (x.mean((1, 2, 3)), {}), r"expected a loss of one number, .*found shape \(4,\)"),
        (lambda x: (1.0, {}), "found float"),
        (lambda x: x.mean(), r"expected a tuple .*, found shape \(\)"),
        (lambda x: (x.mean(), None), "expected a tuple .*, found tuple"),
        (lambda x: (x.mean().detach(), {}), "found a loss without gradient"),
        (lambda x: (x.mean(), {"loss": 1.0}), "scalar 'loss': expected another name"),
        (lambda x: (x.mean(), {"s": x[0]}), r"scalar 's': expected one number, found shape \(3"),
        (lambda x: (x.mean(), {"s": [1.0]}), "scalar 's': expected one number, found list"),
        (lambda x: (x.mean(), {f"{x.mean()}": 1.0}), "expected the scalars of the first step, -"),
    ],
    ids=["vector", "float", "alone", "none", "detached", "name", "image", "list", "changing"],
)
def test_steps_that_break_the_contract_are_refused(output, message, toy, train, tmp_path):
    class Careless(Method):
        unlabeled = False

        def step(self, batch):
            return output(self.model(batch["labeled"]["image"]))

    with pytest.raises(ValueError, match=f"Careless.step: .*{message}"):
        train(Careless, toy.argv(tmp_path / "run"))


def test_scalars_may_change_their_order_but_not_begin_later():
    loss = torch.zeros((), requires_grad=True)
    scalars = {"b": np.float32(1), "a": torch.ones(())}
    assert [*checked_output(SupOnly, (loss, scalars), ["a", "b"])[1]] == ["a", "b"]
    with pytest.raises(ValueError, match="the first step, none; found b, a"):
        checked_output(SupOnly, (loss, scalars), [])


class Lazy(SupOnly):
    """A method that makes a buffer in its first step."""

    def step(self, batch):
        self.register_buffer("bank", torch.zeros(3))
        return super().step(batch)


class Growing(SupOnly):
    """A method that makes a buffer after its first epoch."""

    def after_epoch(self, epoch, is_best):
        self.register_buffer("bank", torch.zeros(3))


class Idle(SupOnly):
    """A method with a head that its loss does not use."""

    def __init__(self, model, config):
        super().__init__(model, config)
        self.head = torch.nn.Conv2d(2, 2, 1)


@pytest.mark.parametrize("kind", [Lazy, Growing])
def test_parts_that_a_resumed_run_lacks_are_refused(kind, toy, train, tmp_path):
    with pytest.raises(ValueError, match=f"{kind.__name__}: added, .* during training: bank; a"):
        train(kind, toy.argv(tmp_path / "run"))


def test_parts_that_do_not_learn_are_named(toy, train, tmp_path):
    train(Idle, toy.argv(tmp_path / "run"))
    log = (tmp_path / "run/log.txt").read_text()
    assert log.count("Idle.step: no gradient for head.weight, head.bias: the") == 1


def test_a_method_with_the_name_of_another_is_refused(monkeypatch):
    require_own_name(FixMatch)
    require_own_name(type("Mine", (FixMatch,), {}))
    with pytest.raises(UserError, match=r"test_trainer\.py: class FixMatch .* fixmatch\.py, but"):
        require_own_name(type("FixMatch", (FixMatch,), {}))
    monkeypatch.setattr(sys, "argv", ["folder/fixmatch.py"])
    started = type("FixMatch", (FixMatch,), {"__module__": "__main__"})
    require_own_name(started)
    monkeypatch.setattr(sys, "argv", ["fixmatch_copy.py"])
    with pytest.raises(UserError, match=r"fixmatch_copy\.py: class FixMatch .* fixmatch\.py, but"):
        require_own_name(started)


class Twins(Method):
    unlabeled = False

    def __init__(self, model, config):
        super().__init__(model, config)
        self.model_b = another_network(model, config)

    def step(self, batch):
        x, y = batch["labeled"]["image"], batch["labeled"]["mask"]
        loss = self.criterion(self.model(x), y) + self.criterion(self.model_b(x), y)
        return loss, {"weight": 0.5}

    def eval_models(self):
        return {"model": self.model, "model_b": self.model_b}


def test_a_method_with_two_networks(toy, train, tmp_path, capsys, recwarn):
    """Count the parameters of both, and build them without memory for the estimate."""
    network = build_network(load_config(toy.config).model, 3)
    torch.save(network.backbone.state_dict(), file := tmp_path / "backbone.pth")
    train(Twins, toy.argv(tmp_path / "run", "--dry-run", "--set", f"model.pretrained={file}"))
    output, millions = capsys.readouterr().out, sum(p.numel() for p in network.parameters()) / 1e6
    assert f"  trained parameters    {2 * millions:.1f} M\n" in output and "TFLOP" in output
    assert not [warning for warning in recwarn if "meta" in str(warning.message)]


class WeakViews(Method):
    """A method without strong views."""

    strong_views = 0

    def step(self, batch):
        x, u = batch["labeled"], batch["unlabeled"]
        loss_x = self.criterion(self.model(x["image"]), x["mask"])
        loss_u = self.model(u["weak"]).square().mean()
        return loss_x + loss_u, {"x": loss_x, "u": loss_u}


def test_a_method_may_use_weak_views_only(toy, train, tmp_path):
    train(WeakViews, toy.argv(tmp_path / "run", "--set", "epochs=1", "log.pictures=1"))
    assert (tmp_path / "run/pictures/epoch_001/unlabeled_01.png").exists()
