"""Random bad input ends in one line and exit code 2, or in a correct run.

`python -m tests.soak fuzz` runs more cases; test_bad_input.py keeps the faults that it found.
"""

import sys
import time
import warnings

import pytest

from tests.robustness.fuzzing.verdict import RAN, REFUSED, Fault, verdict

pytestmark = pytest.mark.xdist_group("fuzz")  # on one worker, which builds one world

CASES = {"config": 150, "setting": 100, "list": 120, "picture": 120, "checkpoint": 50,
         "state": 15, "train": 10, "use": 20}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    from tests.robustness.fuzzing.world import World

    return World(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("kind", CASES)
def test_bad_input(kind, world):
    from tests.robustness.fuzzing.fuzz import KINDS, explore  # hypothesis takes a second

    assert CASES.keys() == KINDS.keys()
    tally = explore(KINDS[kind], world, CASES[kind], seed=0)
    assert tally.total() >= CASES[kind] and set(tally) <= {RAN, REFUSED}
    assert tally[REFUSED]


def test_good_input_runs(world):
    """Run a good config in the same world, so that only the bad input can be refused there."""
    from tests.robustness.fuzzing.parsers import ConfigCase, check, judge_config, judge_setting

    whole = world.toy.config.read_bytes()
    assert judge_config(world, ConfigCase(whole, "supervised")) == RAN
    assert judge_setting(world, ["epochs=2"]) == verdict(lambda: check(world)) == RAN


def refuse(lines, code=2):
    sys.stderr.write(lines)
    sys.exit(code)


FAULTS = [
    lambda: refuse("error: one\nerror: two\n"),
    lambda: refuse("error: \x1b[31m\n"),
    lambda: refuse("warning: x\n"),
    lambda: refuse(""),
    lambda: refuse("error: no such file\n", code=1),
    lambda: sys.exit(3),
    lambda: print("a word", file=sys.stderr),
    lambda: warnings.warn("a word", stacklevel=1),
    lambda: time.sleep(9),
]


def test_faults_are_found():
    for command in FAULTS:
        with pytest.raises(Fault):
            verdict(command, patience=0.1)
    with pytest.raises(ZeroDivisionError):
        verdict(lambda: 1 / 0)
