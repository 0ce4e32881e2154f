"""`python -m tools.benchmark`: every benchmark runs, small, and says what it measured."""

import json
import os
import re
import subprocess
import time
import warnings

import pytest
import torch

from tests.conftest import METHODS, REPOSITORY, needs_forks
from tests.forked import FORKED
from tools.benchmark import __main__ as benchmark
from tools.benchmark import gpu, gpu_parts, options
from tools.benchmark.gpu_parts import waits
from tools.benchmark.gpu_table import markdown

SMALL = ("--config", "configs/shapes.yaml", "--device", "cpu", "--set", "batch_size=4")


@pytest.fixture(autouse=True)
def threads():
    """What the tests that follow count on."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("name", "more", "settings"),
    [
        ("step settings", ["--method", "supervised"], ["plain", "channels_last", "bfloat16"]),
        ("step methods", ["crop_size=33"], [*METHODS]),
        ("step parts", ["crop_size=33"], ["without", "with", "share of the step"]),
        ("data", [], ["decoding alone", "whole, seen first", "whole, seen again"]),
        ("eval", ["--size", "96", "130"], ["window by window", "in batches, bfloat16"]),
    ],
)
def test_settings_are_compared(name, more, settings, run):
    code, out, err = run(benchmark, *name.split(), *SMALL, *more, "--repeats", 1)
    assert code == 0, err
    assert "device cpu" in out
    for setting in settings:
        assert re.search(rf"^  {setting}[ :]", out, re.MULTILINE), out
    assert (firsts := re.findall(r", per \w+\n(.*)", out))
    for first in firsts:
        assert re.search(r" [\d.]+ ms .* 1\.00 x", first)


@pytest.mark.parametrize("name", ["step settings", "data"])
def test_a_configs_own_lists(name, toy, run, monkeypatch):
    monkeypatch.setattr("tools.benchmark.photos.make_dataset", lambda *_: pytest.fail("photos"))
    own = ["--own", "--config", toy.config, "--device", "cpu", "--repeats", 1]
    code, out, err = run(benchmark, *name.split(), *own)
    assert code == 0, err
    assert ("images: 60x40" if name == "data" else "crop: 33") in out


# All about a GPU


@pytest.fixture
def forked(monkeypatch):
    monkeypatch.setattr(gpu.multiprocessing, "get_context", lambda _: FORKED)


def on_a_gpu(run, folder, *more):
    return run(benchmark, "gpu", "--out", folder, "--miniature", "--minutes", 90, *more)


def parts(folder):
    return json.loads((folder / "gpu.json").read_text())["parts"]


@needs_forks
def test_all_parts_in_miniature(run, tmp_path, forked, monkeypatch):
    monkeypatch.setitem(gpu.PARTS, "tests", gpu.Part(9, measures))
    code, out, err = on_a_gpu(run, tmp_path)
    assert code == 0, err
    measured = parts(tmp_path)
    assert (
        list(measured) == list(gpu.PARTS) == list(options.PARTS)
        and METHODS.keys() <= measured.keys()
    )
    assert {name: part["failure"] for name, part in measured.items() if "failure" in part} == {}
    assert measured["start"]["found"].keys() >= {
        "imports", "reading lists", "checking files", "first batch", "first step",
    }  # fmt: skip
    code, out, err = on_a_gpu(run, tmp_path)
    assert code == 0 and not out, "nothing was left to do"
    code, out, err = run(benchmark, "gpu", "--out", tmp_path, "--table")
    assert code == 0 and "in miniature: these figures say nothing" in out
    tuned = measured["unimatch"]["found"]["unimatch"]["tuned, ms"]
    assert f"| at most 60 | {tuned:.3g} |" in out
    for title in ("unimatch_v2", "propagation", "compiled", "first step", "shapes, bfloat16"):
        assert f"\n| {title} |" in out


WELL = {"found": {"row": {"s": 1.5}}, "took": 1.0}


def measures(bench):
    return WELL["found"]


def fails(bench):
    raise ValueError("broken\nin two lines")


def hangs(bench):
    time.sleep(600)


def dies(bench):
    os._exit(1)


@needs_forks
def test_a_part_that_fails_hangs_or_dies_is_noted_and_the_next_one_begins(
    run, tmp_path, forked, monkeypatch
):
    found = {"one": gpu.Part(9, fails), "two": gpu.Part(0.05, hangs), "three": gpu.Part(9, dies)}
    monkeypatch.setattr(gpu, "PARTS", {"well": gpu.Part(9, measures), **found})
    monkeypatch.setattr(options, "PARTS", tuple(gpu.PARTS))
    everything = ("--parts", *gpu.PARTS)
    code, _, err = on_a_gpu(run, tmp_path, *everything)
    assert code == 0, err
    failures = {name: part.get("failure") for name, part in parts(tmp_path).items()}
    line = fails.__code__.co_firstlineno + 1
    assert failures == {
        "well": None,
        "one": f"ValueError: broken in two lines (test_benchmarks.py:{line})",
        "two": "not done in 0 s",
        "three": "its process died",
    }


@pytest.mark.parametrize(
    ("code", "said", "found"),
    [
        (0, "2 passed\n", "2 passed"),
        (1, "FAILED a - x\n1 failed\n", "1 failed; FAILED a - x"),
        (4, "", "pytest ended with 4: nothing said"),
    ],
)
def test_the_tests_for_a_gpu_are_a_part(code, said, found, monkeypatch):
    done = subprocess.CompletedProcess([], code, said, "")
    monkeypatch.setattr(subprocess, "run", lambda command, **_: "test_gpu" in command[-1] and done)
    if code == 4:
        with pytest.raises(RuntimeError, match=found):
            gpu_parts.tests(None)
    else:
        assert gpu_parts.tests(None) == {"test_gpu.py": {"result": found}}


def test_a_second_call_goes_on(run, tmp_path, monkeypatch):
    asked = []

    def answers(names, *_):
        asked.append(list(names))
        yield None, {"device": "cpu", "torch": "2.0"}
        for name in asked[-1]:
            yield (
                name,
                {"failure": "no", "took": 1.0} if len(asked) == 1 and name == "tests" else WELL,
            )

    monkeypatch.setattr(gpu, "answers", answers)
    for more in (["shares", "tests"], ["shares", "tests", "windows"], ["shares", "--again"]):
        code, _, err = on_a_gpu(run, tmp_path, "--parts", *more)
        assert code == 0, err
    assert asked == [["shares", "tests"], ["tests", "windows"], ["shares"]]
    assert parts(tmp_path) == dict.fromkeys(("shares", "tests", "windows"), WELL)


def test_figures_of_two_places_are_not_mixed(run, tmp_path, monkeypatch):
    here = {"device": "cpu", "torch": "2.0"}
    monkeypatch.setattr(gpu, "answers", lambda *_: (x for x in [(None, here)]))
    file = tmp_path / "gpu.json"
    where = {"device": "another", "torch": "2.0", "miniature": True}
    before = json.dumps({"where": where, "parts": {"tests": WELL}})
    file.write_text(before)
    code, _, err = on_a_gpu(run, tmp_path, "--parts", "windows")
    assert code == 2 and "measured with device another, found cpu" in err
    assert file.read_text() == before
    file.write_text("[]")
    code, _, err = on_a_gpu(run, tmp_path)
    assert code == 2 and "no record of this benchmark" in err


def test_without_a_gpu_it_says_what_to_do(run, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    code, _, err = run(benchmark, "gpu", "--out", tmp_path)
    assert code == 2 and "--miniature" in err


def test_budgets_end_in_time():
    assert sum(part.seconds for part in gpu.PARTS.values()) + gpu.START <= 60 * gpu.MINUTES


def test_waits_are_named():
    def step():
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)

    (place,) = waits(step, torch.device("cpu"))
    assert re.fullmatch(r"test_benchmarks.py:\d+", place)


def test_the_page_holds_the_tables_of_what_was_measured():
    """What --table prints of docs/gpu.json; so far there is none."""
    file = REPOSITORY / "docs/gpu.json"
    page = (REPOSITORY / "docs/performance.md").read_text()
    assert markdown(gpu.read(file)) in page
