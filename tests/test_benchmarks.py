"""`python -m tools.benchmark`: every benchmark runs, small, and says what it measured."""

import json
import re

import pytest
import torch

from benchmarks import start
from tools import benchmark

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
        ("step", ["--method", "supervised"], {"plain", "channels_last", "bfloat16"}),
        ("methods", [], {"UniMatch", "PrevMatch, one previous model"}),
        ("data", [], {"plain", "ours", "ours, seen again", "decoding alone"}),
        ("eval", ["--size", "96", "130"], {"plain"}),
        ("propagation", ["--set", "crop_size=33"], {"plain", "ours"}),
    ],
)
def test_settings_are_compared_with_the_plain_one(name, more, settings, run, tmp_path):
    numbers = tmp_path / "numbers.json"
    code, out, err = run(benchmark, name, *SMALL, "--repeats", 1, "--json", numbers, *more)
    assert code == 0, err
    record = json.loads(numbers.read_text())
    assert record["device"] == "cpu" and record["config"] == "configs/shapes.yaml"
    for table in record["tables"]:
        assert table["title"] in out
        rows = {row["setting"]: row for row in table["rows"]}
        assert table["rows"][0]["ratio"] == 1 and all(row["seconds"] > 0 for row in rows.values())
    assert settings <= {row["setting"] for table in record["tables"] for row in table["rows"]}


def test_start_up(run, monkeypatch):
    monkeypatch.setattr(start, "COUNTS", {"labeled": 30, "unlabeled": 40, "val": 5})
    code, out, err = run(benchmark, "start", *SMALL, "--method", "supervised")
    assert code == 0, err
    for part in ("imports", "checks, network", "first batch", "start-up"):
        assert re.search(rf"^ *{part} +\d+\.\d\d s", out, re.MULTILINE), out
