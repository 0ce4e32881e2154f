"""A full or failing disk: one line, exit code 2, and an intact last checkpoint or report."""

import os
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest

from supervised import SupOnly
from tests.conftest import json_lines, saved
from tests.runs import latest
from tools.results.runs import Run
from util.errors import UserError
from util.io import check_target, write_text


@contextmanager
def no_file_larger_than(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def small(toy):
    return toy.change(epochs=4, epoch_length=2)


@pytest.mark.parametrize("size", [0, 10, 1_000, 1_000_000])
def test_full_disk(size, small, train, training_error, tmp_path):
    """Fill the disk before the lock, the config, the logs or the checkpoint is written."""
    run = tmp_path / "run"
    train(SupOnly, small.argv(run, "--set", "epochs=1"))
    before = (run / "latest.pth").read_bytes()
    argv = small.argv(run, "--set", "epochs=2", "--force")
    with no_file_larger_than(size):
        output = training_error(SupOnly, argv)
    assert str(run) in output and "cannot be written" in output and "File too large" in output
    assert (run / "latest.pth").read_bytes() == before and not list(run.glob("*.partial"))
    assert len(Run(run).epochs) == 1
    with (run / "starts.jsonl").open("a") as starts:
        starts.write('{"comma')  # as earlier versions left
    train(SupOnly, argv)  # once there is room again
    assert latest(run)["epoch"] == 2 and Run(run).starts[-1].first_step == 2


@pytest.mark.parametrize("failing", ["latest.pth", "metrics.jsonl", "best.pth"])
def test_failing_rename(failing, small, train, training_error, tmp_path, monkeypatch):
    run, replace = tmp_path / "run", Path.replace
    argv = small.argv(run)

    def sometimes(self, target):
        if Path(target).name == failing and (run / "previous.pth").exists():
            raise OSError(5, "Input/output error")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", sometimes)
        output = training_error(SupOnly, argv)
    assert f"{failing}: cannot be written" in output and "previous one is kept" in output
    assert latest(run)["epoch"] in (1, 2) and not list(run.glob("*.partial"))
    if failing == "latest.pth":  # a checkpoint that was not written must not be linked
        assert saved(run / "best.pth")["epoch"] == 1
    else:  # a run whose best checkpoint was not written does not count as finished
        assert len(json_lines(run / "metrics.jsonl")) < latest(run)["epoch"]
    train(SupOnly, argv)
    assert latest(run)["epoch"] == 4 and len(json_lines(run / "metrics.jsonl")) == 4


def test_a_report_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "report.json"
    write_text(path, "old")
    with no_file_larger_than(10), pytest.raises(UserError, match="cannot be written"):
        write_text(path, 9 * "new")
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]


def test_reports_go_through_links_and_into_pipes(tmp_path):
    link, target = tmp_path / "link.json", tmp_path / "target.json"
    link.symlink_to(target)
    write_text(link, "report")
    assert link.is_symlink() and target.read_text() == "report"
    reader, writer = os.pipe()
    pipe = Path(f"/dev/fd/{writer}")
    check_target(pipe, "tools.report")
    write_text(pipe, "report")
    assert os.read(reader, 100) == b"report"
