"""`python -m tools.benchmark`: every benchmark runs with small settings and prints results."""

import argparse
import errno
import re
import subprocess
import sys

import pytest
import torch

from dataset.validation import read_splits
from tests.conftest import METHODS, REPOSITORY
from tools.benchmark import __main__ as benchmark
from tools.benchmark import data, evaluation, gpu, options, start, steps
from tools.benchmark.measure import read


@pytest.fixture(autouse=True)
def few_small_photos(tmp_path, monkeypatch):
    """Work outside the repository; keep the number of threads for the tests that follow."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"COUNT": 16, "SIZE": (64, 48), "ROUND": 4}.items():
        monkeypatch.setattr(data, name, value)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("name", "more", "settings"),
    [
        ("step settings", ["--own", "--method", "supervised"], ["plain", "channels_last", "tuned"]),
        ("step methods", [], [*METHODS]),
        ("data", ["--own"], ["decoding alone", "whole, seen first", "whole, seen again"]),
        ("eval", ["--size", "48", "66"], ["window by window", "in batches, bfloat16"]),
    ],
)
def test_settings_are_compared(name, more, settings, toy, run, monkeypatch):
    if "--own" in more:
        monkeypatch.setattr(data, "make_dataset", lambda *_: pytest.fail("photos"))
    small = ["--config", toy.config, "--device", "cpu", "--repeats", 1]
    out = run(benchmark, *name.split(), *small, *more).output()
    assert "device cpu" in out
    assert ("images 60x40" if name == "data" else "33") in out  # the size of images, or of crops
    for setting in settings:
        assert re.search(rf"^{setting} +[\d.]+ ", out, re.MULTILINE), out
    assert (firsts := re.findall(r"^.* ratio\n(.*)", out, re.MULTILINE))
    assert all(first.endswith("  1.00") for first in firsts)


@pytest.mark.parametrize("name", ["levir", "shapes_pairs", "acdc_unimatch"])
def test_photos_stand_in_for_any_data(name, tmp_path):
    options = argparse.Namespace(config=REPOSITORY / f"configs/{name}.yaml", set=[])
    config = read(options, data=data.make_dataset(tmp_path, None))
    assert config.data.pair is None and config.evaluation.select == "miou"
    assert config.evaluation.volume_pattern is None
    assert len(read_splits(config.data, unlabeled=True).val.samples) == 4


def test_the_time_to_the_first_step(toy, run, monkeypatch):
    monkeypatch.setattr(sys, "executable", "true")  # instead of importing the method
    lists = ["--counts", 30, 40, 5, "--config", toy.config, "--device", "cpu"]
    out = run(benchmark, "start", *lists, "--set", "data.workers=0", "batch_size=2").output()
    assert "labeled 30  unlabeled 40  val 5" in out
    for part in ("imports", "reading lists", "checking files", "first batch", "first step"):
        assert re.search(rf"^{part} +[\d.]+ +[\d.]+$", out, re.MULTILINE), out


def test_photos_on_another_file_system(toy, run, monkeypatch):
    def hardlink_to(path, target):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr("pathlib.Path.hardlink_to", hardlink_to)
    err = run(benchmark, "start", "--config", toy.config, "--device", "cpu").mistake()
    assert "TMPDIR" in err and "Invalid cross-device link" in err
    assert err.count("\n") == 1


# On a GPU


@pytest.fixture
def on_a_gpu(run, tmp_path, monkeypatch):
    """Pretend that there is a GPU; set the parts of the benchmark."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def measure(parts, *more):
        monkeypatch.setattr(gpu, "PARTS", parts)
        monkeypatch.setattr(options, "PARTS", parts)
        return run(benchmark, "gpu", "--out", tmp_path / "gpu", *more)

    return measure


def test_all_parts_are_commands(monkeypatch):
    commands = []
    for module in (steps, data, evaluation, start):
        monkeypatch.setattr(module, "run", commands.append)
    for arguments in gpu.PARTS.values():
        monkeypatch.setattr("sys.argv", ["benchmark", *arguments])
        benchmark.main()
    assert METHODS.keys() <= gpu.PARTS.keys()
    assert all((REPOSITORY / given.config).exists() for given in commands)


def test_a_part_that_fails_or_hangs_is_named_and_the_next_call_goes_on(
    on_a_gpu, tmp_path, monkeypatch
):
    done = []

    def spoilt(command, cwd, stdout, timeout, check):
        assert cwd == REPOSITORY
        name = command[-1]
        done.append(name)
        stdout.write(f"figures of {name}")
        if len(done) == 1:
            raise subprocess.TimeoutExpired(command, timeout)
        if len(done) == 2:
            raise subprocess.CalledProcessError(3, command)

    monkeypatch.setattr(subprocess, "run", spoilt)
    parts = {name: [name] for name in ("slow", "broken", "well")}
    code, out, err = on_a_gpu(parts)
    assert code == 1 and "figures of well" in out and "figures of slow" not in out
    assert "slow: not done within 2 min" in err and "broken: failed with exit code 3" in err
    code, out, err = on_a_gpu(parts)
    assert done == ["slow", "broken", "well", "slow", "broken"] and not err
    assert out.count("figures of") == 3
    (tmp_path / "file").touch()
    assert "file: cannot be made" in on_a_gpu(parts, "--out", tmp_path / "file").mistake()


def test_without_a_gpu_one_line_says_so(run, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    err = run(benchmark, "gpu", "--out", tmp_path).mistake()
    assert "found no GPU" in err
