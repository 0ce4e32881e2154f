"""Short version of `python -m tests.soak kill`."""

import pytest

from tests.conftest import needs_forks
from tests.robustness.fuzzing.kill import anywhere, before_each_file

pytestmark = needs_forks


@pytest.mark.parametrize("method", ["corrmatch", "unimatch_v2"])
def test_killed_anywhere(method, tmp_path):
    assert anywhere(method, kills=3, seed=1, folder=tmp_path) >= 1


def test_killed_before_each_access_to_a_file(tmp_path):
    assert before_each_file("supervised", tmp_path) >= 8
