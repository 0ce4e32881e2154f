"""Cost of a run: fake and real steps, GPUs, `--dry-run` and `python -m tools.cost`."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from engine import main
from engine.cost import (
    GIB,
    MEMORY_KINDS,
    GpuSemantics,
    blank_batch,
    flop_counter,
    late_trainer,
    step_cost,
)
from engine.dry_run import Measurements
from engine.estimate import (
    CUDA_CONTEXT_BYTES,
    GPU_SIZES_GIB,
    Requirements,
    describe_step,
    fitting_gpus,
    largest_batch,
    run_requirements,
    step_seconds,
)
from model.build import build_network
from prevmatch import PrevMatch
from supervised import SupOnly
from tests.conftest import METHODS, REPOSITORY
from tools.cost import __main__ as tool
from tools.methods import methods_of
from unimatch import UniMatch
from unimatch_v2 import UniMatchV2
from util.config.loading import load_config
from util.errors import UserError
from util.io import check_target
from util.precision import precision_on

SMALL = ["crop_size=129", "batch_size=4", "model.channels=64"]


def real_peak(method_class, config, images, folder):
    """Return the peak memory in bytes of a real step on the CPU, with the copies that a GPU would
    make: weights and optimizer state, and the allocations that torch's profiler sees."""
    method = method_class(build_network(config.model, config.num_classes), config)
    training = late_trainer(method, config)
    raw = blank_batch(method_class, config, images)
    stays = [*method.parameters(), *method.buffers()]
    stays += [x for state in training.optimizer.state.values() for x in state.values()]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found, GpuSemantics():
        training.optimize(raw, 0)
    found.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    seen = sorted((e for e in events if e["name"] == "[memory]"), key=lambda e: e["ts"])
    totals = [e["args"]["Total Allocated"] for e in seen]
    before = totals[0] - seen[0]["args"]["Bytes"]  # left over from earlier profiles
    return sum(x.nbytes for x in stays if isinstance(x, torch.Tensor)) + max(totals) - before


native = pytest.mark.skipif(
    precision_on(torch.device("cpu"), "auto") != "bfloat16",
    reason="a CPU that emulates bfloat16 needs other memory",
)


@pytest.mark.parametrize(
    ("script", "precision"),
    [
        *((script, "float32") for script in METHODS),
        pytest.param("unimatch", "bfloat16", marks=native),
    ],
)
def test_fake_peak_is_the_real_one_within_a_tenth(script, precision, toy, tmp_path):
    config = load_config(toy.config, [*SMALL, f"precision={precision}"])
    images = 4 if METHODS[script].unlabeled else 8
    real = real_peak(METHODS[script], config, images, tmp_path)
    found = step_cost(METHODS[script], config, images, images)
    assert found.peak == pytest.approx(real, rel=0.1)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet"])
def test_kinds_and_arithmetic(backbone, toy):
    config = load_config(toy.config, [*SMALL, f"model.backbone={backbone}"])
    network = build_network(config.model, config.num_classes)
    weights = sum(x.nbytes for x in network.state_dict().values())
    trained = sum(x.nbytes for x in network.parameters())
    macs = []
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(
                lambda m, _, out: macs.append(out.numel() * m.weight[0].numel())
            )
    network(torch.zeros(8, 3, 129, 129))
    whole, parts = (step_cost(SupOnly, config, 8, n) for n in (8, 2))
    assert whole.weights == parts.weights == weights
    assert whole.optimizer == parts.optimizer == trained
    assert parts.gradients == trained and parts.activations < 0.4 * whole.activations
    # Forward, and gradients of weights and inputs; only the first convolution has no such input.
    assert 5.5 < whole.tflop * 1e12 / sum(macs) < 6
    assert parts.tflop == pytest.approx(whole.tflop, rel=0.01)
    assert trained + weights <= whole.checkpoint < 1.01 * (trained + weights)


@pytest.mark.parametrize(
    ("convolution", "multiplications"),
    [
        (nn.Conv2d(8, 4, 3, padding=1), 2 * 4 * 81 * 72),
        (nn.Conv2d(8, 4, 3, padding=1, groups=2), 2 * 4 * 81 * 36),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), 2 * 8 * 81 * 9),
        (nn.Conv2d(8, 16, 3, padding=1, groups=8), 2 * 16 * 81 * 9),
        (nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8), 2 * 8 * 25 * 9),
        (nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8), 2 * 8 * 81 * 9),
        (nn.ConvTranspose2d(8, 4, 2, stride=2), 2 * 8 * 81 * 16),
        (nn.ConvTranspose2d(8, 4, 2, stride=2, groups=4), 2 * 8 * 81 * 4),
    ],
)
def test_gradients_of_a_convolution_cost_its_forward_each(convolution, multiplications):
    """Count outputs (inputs of a transposed convolution) times the multiplications of each; a
    multiplication and its addition count 2."""
    for wants_input, times in ((False, 2), (True, 3)):
        with flop_counter() as counter:
            convolution(torch.randn(2, 8, 9, 9, requires_grad=wants_input)).sum().backward()
        assert counter.get_total_flops() == times * 2 * multiplications


def test_settings_that_save_memory(toy):
    plain = step_cost(UniMatch, load_config(toy.config, SMALL), 4, 4)
    for setting in ("model.checkpoint_activations=true", "precision=bfloat16"):
        less = step_cost(UniMatch, load_config(toy.config, [*SMALL, setting]), 4, 4)
        assert less.activations < plain.activations and less.tflop >= plain.tflop
    step_cost(UniMatch, load_config(toy.config, [*SMALL, "channels_last=true"]), 4, 4)
    locked = step_cost(
        UniMatch, load_config(toy.config, [*SMALL, "model.lock_backbone=true"]), 4, 4
    )
    assert locked.optimizer < plain.optimizer and locked.tflop < plain.tflop
    teacher = step_cost(UniMatchV2, load_config(toy.config, SMALL), 4, 4)
    assert teacher.weights == 2 * plain.weights and teacher.optimizer == plain.optimizer
    odd = step_cost(UniMatchV2, load_config(toy.config, SMALL), 3, 3)  # of images per forward pass
    assert 0 < odd.peak < teacher.peak


def test_cards_hold_what_is_left_of_them():
    names = list(GPU_SIZES_GIB)
    fits = {4: int(10 * GIB), 2: int(5.5 * GIB), 1: int(3 * GIB)}
    assert largest_batch(fits) == dict(zip(names, [2, 2, 4, 4, 4, 4], strict=True))
    assert set(largest_batch({1: 200 * GIB}).values()) == {None}
    exactly = (80 * GIB - CUDA_CONTEXT_BYTES) / 1.1
    assert largest_batch({1: int(exactly)})["80"] == 1
    assert largest_batch({1: int(exactly) + 1})["80"] is None


def test_micro_batch_is_found_by_trying(toy, monkeypatch):
    monkeypatch.setattr("engine.estimate.CUDA_CONTEXT_BYTES", 8 * GIB - 1.2e8)  # 8 GiB is too small
    config = load_config(toy.config, SMALL)
    requirements = run_requirements(UniMatch, config, world=1, workers=2)
    assert requirements.per_forward["80"] == 4 and requirements.per_forward["8"] == 2
    assert requirements.disk == 4 * requirements.cost.checkpoint
    more = run_requirements(UniMatch, config, world=1, workers=4)
    assert more.host > requirements.host


def test_hours_follow_precision(toy):
    seconds = [
        step_seconds(9.8, load_config(toy.config, [f"precision={p}", "tf32=false"]))["A100"]
        for p in ("bfloat16", "float32")
    ]
    assert seconds[0] == pytest.approx(9.8 / (0.35 * 312)) and seconds[1] == seconds[0] * 16


def test_times_are_lower_bounds_and_left_out_for_tiny_steps(toy):
    """Loading and launching kernels dominate where a step's arithmetic takes under 10 ms."""
    config = load_config(toy.config, ["precision=float32", "tf32=true"])
    cost = step_cost(SupOnly, config, 2, 2)
    tiny, mixed, large = (
        describe_step(replace(cost, tflop=tflop), config, 10_000) for tflop in (0.01, 0.25, 9.8)
    )
    assert "whole run             at least (by arithmetic alone),\n" in large
    assert all(gpu in large for gpu in ("RTX 3090 2 h 11 min", "H100"))
    assert "RTX 3090 3 min" in mixed and "H100" not in mixed
    assert "whole run             not estimated: " in tiny and "RTX" not in tiny


@pytest.mark.parametrize(
    ("fitting", "expected"),
    [
        ([4, 4, 4, 4, 4, 4], "every GPU of at least 8 GiB"),
        ([None, 1, 1, 2, 4, 4],
         "every GPU of at least 40 GiB; 24 GiB with micro_batch 2; 11/12, 16 GiB with "
         "micro_batch 1; not on 8 GiB"),
        ([None, None, None, None, None, 2],
         "no GPU with this micro_batch; 80 GiB with micro_batch 2; not on 8, 11/12, 16, 24, 40/48 "
         "GiB"),
    ],
)  # fmt: skip
def test_fitting_gpus(fitting, expected):
    requirements = Requirements(None, dict(zip(GPU_SIZES_GIB, fitting, strict=True)), 0, 0)
    assert fitting_gpus(requirements, 4) == expected


def test_a_network_that_needs_more_images_is_reported(toy):
    with pytest.raises(UserError, match="batch norm"):
        step_cost(SupOnly, load_config(toy.config), 4, 1)


def test_one_image_of_each_process_is_enough(toy):
    """Accept one image per process: batch norms on GPUs share statistics across processes."""
    config = load_config(toy.config, ["batch_size=2"])
    requirements = run_requirements(SupOnly, config, world=4, workers=0)
    assert requirements.per_forward["80"] == 1 and requirements.cost.activations > 0


def test_previous_models_wait_in_the_hosts_memory(toy):
    config = load_config(toy.config, [*SMALL, "epochs=4"])
    plain, more = (
        run_requirements(kind, config, world=1, workers=0) for kind in (UniMatch, PrevMatch)
    )
    kept = 4 * plain.cost.weights
    assert more.host - plain.host == pytest.approx(2 * kept, rel=0.01)


def test_needs_are_said_before_memory_runs_out(toy, run, monkeypatch, tmp_path, capsys):
    def full(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr("engine.dry_run.measure", full)
    monkeypatch.setattr("sys.argv", ["supervised.py", *toy.argv(tmp_path / "run", "--dry-run")])
    with pytest.raises(SystemExit):
        main(SupOnly)
    assert "fits on   " in capsys.readouterr().out


def test_a_loss_that_is_not_finite_is_not_well(toy, train, tmp_path, capsys, monkeypatch):
    found = Measurements(float("nan"), step=1, load=0, image=0, image_load=0, workers=0)
    monkeypatch.setattr("engine.dry_run.measure", lambda trainer: found)
    train(SupOnly, toy.argv(tmp_path / "run", "--dry-run"))
    output = capsys.readouterr().out
    assert (
        "dry run: passed" not in output and "dry run: the loss of its first step is nan" in output
    )


def test_a_torch_without_fake_tensors_gives_one_error_line(
    toy, train, run, tmp_path, capsys, monkeypatch
):
    monkeypatch.delattr("torch._subclasses.fake_tensor.FakeTensorMode")
    train(SupOnly, toy.argv(tmp_path / "run", "--dry-run"))
    output = capsys.readouterr().out
    assert "dry run: passed" in output and output.count("cannot be estimated: torch") == 1
    code, out, err = run(tool, toy.config, "--methods", "supervised")
    assert code == 1 and err.count("cannot be estimated") == 1 and "SupOnly" not in out


def test_table(toy, run, tmp_path):
    out = run(
        tool, toy.config, "--methods", "supervised", "unimatch", "--json", tmp_path / "costs.json"
    ).output()
    lines = out.splitlines()
    assert len(lines) == 4 and "SupOnly" in lines[2] and "UniMatch" in lines[3]
    check_target(tmp_path / "costs.json", "tools.cost")
    records = json.loads((tmp_path / "costs.json").read_text())
    assert [r["method"] for r in records] == ["SupOnly", "UniMatch"]
    assert all(r.keys() >= {"peak", *MEMORY_KINDS} for r in records)


@pytest.mark.parametrize(
    "argv",
    [["configs/shapes.yaml", "--set", "micro_batch=3"],
     ["configs/shapes.yaml", "--processes", "3"], ["configs/shapes.yaml", "--processes", "0"],
     ["configs/shapes_corrmatch.yaml", "--methods", "unimatch"],
     ["configs/shapes.yaml", "--json", "no/such/costs.json"],
     ["configs/shapes.yaml", "--json", "README.md"]],
)  # fmt: skip
def test_invalid_arguments_give_one_error_line(argv, run, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    code, out, err = run(tool, *argv)
    assert code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1


def test_methods_that_a_config_is_for():
    folder = REPOSITORY / "configs"
    found = methods_of(folder / "pascal.yaml", ["all"])
    assert sorted(found) == ["fixmatch", "rankmatch", "supervised", "unimatch"]
    assert methods_of(folder / "pascal_unimatch_v2.yaml", ["all"]) == ["unimatch_v2"]
    assert sorted(methods_of(folder / "camvid.yaml", ["all"])) == sorted(METHODS)
    assert methods_of(folder / "camvid.yaml", ["fixmatch"]) == ["fixmatch"]
