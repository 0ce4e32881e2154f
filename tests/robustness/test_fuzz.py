"""Bad input by the hundred ends in one line and exit code 2, or in a correct run.

`python -m tests.soak fuzz` looks for as much as one likes; what it found is in test_bad_input.py.
"""

import sys
import time
import warnings

import pytest

from tests.robustness.fuzzing.fuzz import KINDS, explore
from tests.robustness.fuzzing.parsers import ConfigCase, check, judge_config, judge_setting
from tests.robustness.fuzzing.verdict import RAN, REFUSED, Fault, verdict
from tests.robustness.fuzzing.world import World

CASES = {"config": 150, "setting": 100, "list": 120, "image": 60, "mask": 60, "checkpoint": 50,
         "state": 15, "train": 10, "use": 20, "process": 1}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input(kind, world):
    tally = explore(KINDS[kind], world, CASES[kind], seed=0)
    assert tally.total() >= CASES[kind] and set(tally) <= {RAN, REFUSED}
    assert tally[REFUSED] or CASES[kind] == 1


def test_good_input_runs(world):
    """In the world that bad input stands in, so that it alone is what is refused there."""
    whole = world.toy.config.read_bytes()
    assert judge_config(world, ConfigCase(whole, "supervised")) == RAN
    assert judge_setting(world, ["epochs=2"]) == verdict(lambda: check(world)) == RAN


def refuse(lines, code=2):
    sys.stderr.write(lines)
    sys.exit(code)


def test_verdicts():
    assert verdict(lambda: None) == RAN
    assert verdict(lambda: refuse("error: no such file\n")) == REFUSED


@pytest.mark.parametrize(
    "command",
    [
        lambda: refuse("error: one\nerror: two\n"),
        lambda: refuse("error: \x1b[31m\n"),
        lambda: refuse("warning: x\n"),
        lambda: refuse(""),
        lambda: refuse("error: no such file\n", code=1),
        lambda: sys.exit(3),
        lambda: print("a word", file=sys.stderr),
        lambda: warnings.warn("a word", stacklevel=1),
        lambda: time.sleep(9),
    ],
)
def test_faults_are_seen(command):
    with pytest.raises(Fault):
        verdict(command, patience=0.1)
    with pytest.raises(ZeroDivisionError):
        verdict(lambda: 1 / 0)
