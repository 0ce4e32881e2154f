"""Random bad input ends in one line and exit code 2, or in a correct run.

`python -m tests.soak fuzz` runs more cases; test_bad_input.py keeps the faults that it found.
"""

import pytest

from tests.robustness.fuzzing.verdict import RAN, REFUSED

pytestmark = pytest.mark.xdist_group("fuzz")  # on one worker, which builds one world

KINDS = ["config files", "--set", "split files", "images and masks", "checkpoints"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    from tests.robustness.fuzzing.fuzz import World  # hypothesis takes a second

    return World(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input(kind, world):
    from tests.robustness.fuzzing import fuzz

    assert [*fuzz.KINDS] == KINDS
    tally = fuzz.explore(kind, world, factor=1, seed=0)
    assert tally.total() >= fuzz.KINDS[kind].count and set(tally) <= {RAN, REFUSED}
    assert tally[REFUSED]


def test_good_input_runs(world):
    """Run good input in the same world, so that only the bad input can be refused there."""
    from tests.robustness.fuzzing.fuzz import Case

    good = world.toy.config.read_bytes()
    for kind in ("config files", "split files"):
        assert world.judge(kind, Case("toy.yaml", good, ["epochs=2"])) == RAN
