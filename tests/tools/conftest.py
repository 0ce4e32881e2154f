"""Fixtures of the tests of commands."""

import pytest


@pytest.fixture
def init(run, tmp_path, monkeypatch):
    """Run `tools.prepare init` in a folder of its own, by default on images/ and masks/."""
    from tools.prepare import __main__ as prepare

    monkeypatch.chdir(tmp_path)

    def command(*more):
        return run(prepare, "init", "--images", "images", "--masks", "masks", "--out",
                   "configs/mine.yaml", *more)  # fmt: skip

    return command


@pytest.fixture
def case(request, tmp_path, monkeypatch):
    """A dataset of tests/preparing.py, by its name."""
    from tests.preparing import Case

    return Case(request.param, tmp_path, monkeypatch)
