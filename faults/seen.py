"""Which tests run which lines, recorded by test file: kept until one of the files that a test file
runs has changed."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import coverage
import pytest

from faults.forks import Fork, fork, run_tests
from faults.plant import Fault

PATIENCE = 600.0
"""Seconds that a test file may take."""
ENOUGH = 60.0
"""Seconds' worth of tests that a fault meets: lines that hundreds of tests run would else take an
hour for each fault that none of them finds."""
OF_IMPORTS = "tests/test_configs.py::"
"""Tests that look at defaults and bounds, which run no line of the files where these stand."""


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest() if path.exists() else ""


class Watch:
    """A plugin of pytest that tells coverage which test runs, and notes how they ended."""

    def __init__(self, measured: coverage.Coverage):
        self.measured = measured
        self.seconds: dict[str, float] = defaultdict(float)
        self.others: set[str] = set()
        """Tests that failed or were skipped."""

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.measured.switch_context(item.nodeid)
        yield
        self.measured.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration
        if not report.passed:
            self.others.add(report.nodeid)


class Seen(NamedTuple):
    """What the tests of a file run."""

    digests: dict[str, str]
    """Of the files that they ran, by path; of the test file, too."""
    seconds: dict[str, float]
    """How long each test that passed took."""
    lines: dict[str, dict[int, list[str]]]
    """Tests by file and line; none for a line that importing alone runs."""

    @classmethod
    def load(cls, file: Path, root: Path) -> "Seen | None":
        """None where there is no record, or files have changed since."""
        with suppress(OSError, ValueError):
            digests, seconds, lines = json.loads(file.read_text())
            if all(digest(root / path) == known for path, known in digests.items()):
                tests = list(seconds)
                return cls(digests, seconds, {
                    path: {int(line): [tests[n] for n in numbers] for line, numbers in by.items()}
                    for path, by in lines.items()
                })  # fmt: skip
        return None


def record(root: Path, test_file: str, folder: Path) -> int:
    """Run a file of tests and write down what they run (in a process of its own)."""
    measured = coverage.Coverage(
        None, include=[f"{root}/*"], omit=[f"{root}/faults/*"], config_file=False
    )
    watch = Watch(measured)
    measured.start()
    code = run_tests([test_file], watch)
    measured.stop()
    seconds = {name: took for name, took in watch.seconds.items() if name not in watch.others}
    numbers = {name: number for number, name in enumerate(seconds)}
    data, lines, digests = measured.get_data(), {}, {test_file: digest(root / test_file)}
    for file in data.measured_files():
        path = str(Path(file).relative_to(root))
        digests[path] = digest(Path(file))
        if not path.startswith("tests/"):
            lines[path] = {
                line: [numbers[test] for test in tests if test in numbers]
                for line, tests in data.contexts_by_lineno(file).items()
            }
    kept = folder / f"{Path(test_file).stem}.json"
    kept.write_text(json.dumps([digests, seconds, lines]))
    return code


def recording(root: Path, test_file: str, folder: Path) -> Fork:
    output = folder / f"{Path(test_file).stem}.txt"
    return fork(partial(record, root, test_file, folder), root, output, PATIENCE)


class Coverage:
    """What all tests run."""

    def __init__(self, seen: Iterable[Seen]):
        self.seconds: dict[str, float] = {}
        self.digests: dict[str, str] = {}
        self._lines: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        self._breadth = Counter[str]()
        """How many lines a test runs."""
        for one in seen:
            self.seconds |= one.seconds
            self.digests |= one.digests
            for path, lines in one.lines.items():
                for line, tests in lines.items():
                    self._lines[path][line].update(tests)
                    self._breadth.update(tests)

    def tests_of(self, fault: Fault) -> list[str]:
        """The tests that run the statement of a fault, quick ones that run little else first, up to
        `ENOUGH` of them; if it runs where the file is imported, those that run anything of it."""
        lines = self._lines.get(fault.path, {})
        ran = [lines[n] for n in range(fault.first, fault.last + 1) if n in lines]
        tests = set().union(*ran)
        if ran and not tests:
            tests = set().union(*lines.values())
            tests |= {test for test in self.seconds if test.startswith(OF_IMPORTS)}
        narrow = sorted(tests, key=lambda test: (self._breadth[test] * self.seconds[test], test))
        before = accumulate((self.seconds[test] for test in narrow), initial=0.0)
        return [test for test, spent in zip(narrow, before, strict=False) if spent < ENOUGH]

    def state_of(self, tests: Iterable[str]) -> str:
        """Changes with these tests, and with the files that hold them."""
        files = {test.partition("::")[0] for test in tests}
        known = [*sorted(tests), *sorted(self.digests[file] for file in files)]
        return sha256("\n".join(known).encode()).hexdigest()
