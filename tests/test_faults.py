"""`python -m tools.faults` on a repository of one file: which faults its tests find."""

import pytest

from faults.plant import Fault, faults_of
from faults.seen import Coverage, Seen
from tests.conftest import needs_forks
from tests.forked import Forked

CODE = '''"""A module."""

from math import hypot

LIMIT = 3


def within(x: float | None, low: float = 0) -> bool:
    if x is None:
        raise ValueError("nothing" + "!")
    print(x + 1)
    return low <= x < LIMIT


def idle(x):
    return hypot(x, 1)


if __name__ == "__main__":
    idle(1)
'''
TESTS = """
import area


def test_inside():
    assert area.within(1) and not area.within(5)


def test_at_zero():
    assert area.within(0)


def test_that_fails_anyway():
    assert area.within(9)
"""
AT_LIMIT = """

def test_at_the_limit():
    assert not area.within(3) and area.within(2.9)
"""
DRIVER = """
from pathlib import Path
import faults.known as known
import tools.faults as tool
tool.ROOT, tool.DECIDING = Path({root!r}), ["area.py"]
known.Explained.__init__.__defaults__ = (Path({root!r}, "explained.yaml"),)
tool.warm_up = lambda: None
tool.main()
"""


@pytest.fixture
def repository(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "area.py").write_text(CODE)
    (tmp_path / "tests/test_area.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    (tmp_path / "explained.yaml").write_text("{}\n")
    (tmp_path / "driver.py").write_text(DRIVER.format(root=str(tmp_path)))
    return tmp_path


@pytest.fixture
def faults(repository):
    """The command; returns exit code, output, errors."""

    def run(*arguments):
        done = Forked(
            repository / "driver.py", "--folder", repository / "kept", "--minutes", 2, *arguments
        ).end()
        return done.returncode, done.stdout, done.stderr

    return run


def test_faults_of_a_file(repository):
    found = list(faults_of(repository, "area.py"))
    for fault in found:
        compile(fault.code, fault.path, "exec")
    assert {(fault.first, fault.after) for fault in found} == {
        (5, "LIMIT = 4"),
        (8, "def within(x: float | None, low: float = 1) -> bool:"),
        (9, "if x is not None:"),
        (12, "return low < x < LIMIT"),
        (12, "return low <= x <= LIMIT"),
        (16, "return hypot(1)"),
        (16, "return hypot(x, )"),
        (16, "return hypot(x, 2)"),
    }


def test_strict_of_zip_is_left_alone(tmp_path):
    (tmp_path / "pairs.py").write_text("found = list(zip([1, x], y, strict=True))\n")
    after = {fault.after for fault in faults_of(tmp_path, "pairs.py")}
    assert after == {
        "found = list(zip([2, x], y, strict=True))",
        "found = list(zip(y, strict=True))",
        "found = list(zip([1, x], strict=True))",
    }


def test_quick_tests_that_run_little_else_come_first_up_to_a_minute():
    bounds = "tests/test_configs.py::test_bounds"
    seconds = {"wide": 30.0, "narrow": 60.0, "quick": 1.0, "elsewhere": 1.0, bounds: 1.0}
    lines = {
        1: [],
        5: ["wide", "narrow", "quick"],
        12: ["wide", "quick"],
        16: ["wide", "elsewhere"],
    }
    fault = Fault("area.py", 5, 5, "LIMIT = 3", "LIMIT = 4", "")
    ran = Coverage([Seen({}, seconds, {"area.py": lines})])
    assert ran.tests_of(fault) == ["quick", "narrow"], "at 61 seconds it is enough"
    assert ran.tests_of(fault._replace(first=16, last=16)) == ["elsewhere", "wide"]
    importing = ran.tests_of(fault._replace(first=1, last=1))
    assert importing == [bounds, "elsewhere", "quick", "narrow"]


LEFT = "return low <= x < LIMIT\n  return low <= x <= LIMIT"


@needs_forks
def test_what_tests_find_and_what_is_left(faults, repository):
    code, out, err = faults()
    assert code == 1, err
    assert out.startswith("tests/test_area.py: 2 tests\n")
    assert "methods" in out and "5 of 5 tried" in err
    left = out.split("\n\n")[1:]
    assert [one.splitlines()[0] for one in left] == [
        "area.py:5", "area.py:12", *["area.py:16  (no test runs it)"] * 3,
    ]  # fmt: skip
    assert LEFT in left[1]

    code, out, err = faults()  # nothing is left to do
    assert code == 1 and "tried" not in err and LEFT in out and "tests/" not in out

    (repository / "tests/test_area.py").write_text(TESTS + AT_LIMIT)
    code, out, err = faults()
    assert code == 1 and "tests/test_area.py: 3 tests" in out and "2 of 2 tried" in err
    assert LEFT not in out and (repository / "area.py").read_text() == CODE


@needs_forks
def test_explanations(faults, repository):
    (repository / "tests/test_area.py").write_text(TESTS + AT_LIMIT)
    explained = repository / "explained.yaml"
    explained.write_text("idle:\n  area.py:\n  - return hypot(x, 1)\n")
    code, out, err = faults()
    assert code == 0, err
    assert out.splitlines()[-1].split()[1:] == ["8", "8", "5", "3", "0", "100.0%"]
    explained.write_text("idle:\n  area.py:\n  - return hypot(x, 9)\n")
    code, _, err = faults()
    assert code == 2 and "area.py has no fault 'return hypot(x, 9)'" in err


@needs_forks
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.py"], "nowhere.py: no file or folder of the repository"),
        (["--minutes", 0], "over before 1 files of tests had run"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, said, faults):
    code, _, err = faults(*arguments)
    assert code == 2 and said in err and err.count("\n") == 1


@needs_forks
def test_results_that_are_none(faults, repository):
    (repository / "kept").mkdir()
    (repository / "kept/results.json").write_text("{")
    code, _, err = faults()
    assert code == 2 and "results.json: not results of this command" in err
