"""A full, read-only or failing disk: one line, exit code 2, and an intact last checkpoint."""

import resource
import shlex
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from supervised import SupOnly
from tests.conftest import REPOSITORY
from tests.engine.test_interruption import end


@contextmanager
def no_file_larger_than(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def refused(train, argv, capsys):
    """Return the error line of a training that fails."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        train(SupOnly, argv)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1, said
    return said


@pytest.fixture
def small(toy):
    toy.tree |= {"epochs": 4, "epoch_length": 2}
    toy.write_config()
    return toy


@pytest.mark.parametrize("size", [0, 10, 1_000, 1_000_000])
def test_full_disk(size, small, train, tmp_path, capsys):
    """Fill the disk before the lock, the config, the logs or the checkpoint is written."""
    run = tmp_path / "run"
    train(SupOnly, small.argv(run, "--set", "epochs=1"))
    before = (run / "latest.pth").read_bytes()
    argv = small.argv(run, "--set", "epochs=2", "--force")
    with no_file_larger_than(size):
        said = refused(train, argv, capsys)
    assert str(run) in said and "cannot be written" in said
    assert (run / "latest.pth").read_bytes() == before and not list(run.glob("*.partial"))
    train(SupOnly, argv)  # once there is room again
    assert end(run)["epoch"] == 2


@pytest.mark.parametrize("failing", ["latest.pth", "metrics.jsonl", "best.pth"])
def test_failing_rename(failing, small, train, tmp_path, capsys, monkeypatch):
    run, replace = tmp_path / "run", Path.replace
    argv = small.argv(run)

    def sometimes(self, target):
        if Path(target).name == failing and (run / "previous.pth").exists():
            raise OSError(5, "Input/output error")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", sometimes)
        said = refused(train, argv, capsys)
    assert f"{failing}: cannot be written" in said and "previous one is kept" in said
    assert end(run)["epoch"] in (1, 2) and not list(run.glob("*.partial"))
    if failing == "latest.pth":  # a checkpoint that was not written must not be linked
        assert torch.load(run / "best.pth", weights_only=True)["epoch"] == 1
    train(SupOnly, argv)
    assert end(run)["epoch"] == 4 and len((run / "metrics.jsonl").read_text().splitlines()) == 4


def test_file_systems_that_are_full_and_read_only(small, tmp_path):
    """Use a real 8 MB file system, in its own mount namespace, with room for two checkpoints."""
    disk, out = tmp_path / "disk", tmp_path / "out"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=8m tmpfs {shlex.quote(str(disk))}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    train = shlex.join([sys.executable, "supervised.py", *small.argv(disk / "run")])
    script = f"""
        set -x; {mount}
        {train} 2>{out}-full; echo $? >>{out}-codes; cp -r {disk}/run {out}-run
        mount -o remount,ro {disk}
        {train} 2>{out}-read-only; echo $? >>{out}-codes
        cmp {disk}/run/latest.pth {out}-run/latest.pth
    """
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert Path(f"{out}-codes").read_text() == "2\n2\n"
    full, read_only = (Path(f"{out}-{name}").read_text() for name in ("full", "read-only"))
    assert full.startswith("error: ") and "latest.pth: cannot be written" in full
    assert read_only.startswith("error: ") and "Read-only file system" in read_only
    assert full.count("\n") == read_only.count("\n") == 1
    assert end(Path(f"{out}-run"))["epoch"] == 2
