"""Short version of `python -m tests.soak kill`, and tests of its comparison."""

import json
import re
import shutil

import pytest
import torch

from supervised import SupOnly
from tests.conftest import json_lines, needs_forks, saved
from tests.forked import Forked
from tests.robustness.fuzzing.kill import Different, assert_same


@needs_forks
def test_killed_anywhere():
    """Run in a separate process, because its children are forked and must inherit no threads."""
    done = Forked(
        "-m", "tests.soak", "kill", "--kills", 3, "--seed", 1,
        "--methods", "corrmatch", "unimatch_v2",
    ).end()  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = re.findall(r"^(\w[\w ]*?)  +(\d+)  yes", done.stdout, re.MULTILINE)
    kills = {name: int(count) for name, count in lines}
    assert kills.keys() == {"corrmatch", "unimatch_v2", "at each file"}, done.stdout
    assert kills["corrmatch"] + kills["unimatch_v2"] >= 3 and kills["at each file"] >= 8


def other_momentum(path):
    state = saved(path)
    next(iter(state["optimizer"]["state"].values()))["momentum_buffer"].flatten()[0] += 1
    torch.save(state, path)


def other_history(run):
    record, *others = json_lines(run / "metrics.jsonl")
    record["train"]["loss"] += 1e-9
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, [record, *others])))


CHANGES = {
    r"latest.pth.*momentum_buffer": lambda run: other_momentum(run / "latest.pth"),
    r"best.pth.*momentum_buffer": lambda run: other_momentum(run / "best.pth"),
    "metrics.jsonl.*loss": other_history,
    "files .*best.pth.partial": lambda run: (run / "best.pth.partial").touch(),
}


@pytest.mark.parametrize("what", CHANGES)
def test_differences_are_seen(what, toy, train, tmp_path):
    train(SupOnly, toy.argv(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert_same(tmp_path / "a", tmp_path / "b")
    CHANGES[what](tmp_path / "b")
    with pytest.raises(Different, match=what):
        assert_same(tmp_path / "a", tmp_path / "b")
