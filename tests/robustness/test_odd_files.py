"""Odd file names, circular links, and a machine without memory, git or a Unicode terminal."""

import io
import os
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from dataset.folders import files_by_stem
from engine.command import main
from engine.trainer import Trainer
from supervised import SupOnly
from tests.conftest import run_python
from tests.robustness.fuzzing.verdict import RAN, REFUSED, called, run_module, verdict
from util import log
from util.errors import UserError

ODD_NAMES = [b"\xff", b"a\nb", b" space", b"tab\t", b"-x", "漢".encode(), b"x" * 250, b"a.b"]


@pytest.fixture
def odd(toy):
    """Make images with odd names in a folder below the data's root."""
    folder = toy.root / "odd"
    folder.mkdir()
    image = (toy.root / "images/u0.jpg").read_bytes()
    for name in ODD_NAMES:
        Path(os.fsdecode(bytes(folder) + b"/" + name + b".jpg")).write_bytes(image)
    return folder


def script(name, *argv):
    return verdict(lambda: called(partial(run_module, name), *argv))


def test_odd_names(odd, toy, tmp_path):
    assert script("supervised", *toy.argv(tmp_path / "run", "--set", "epochs=1")) == RAN
    argv = ["--config", toy.config, "--checkpoint", tmp_path / "run/best.pth", "--images", odd]
    (odd / "folder.jpg").mkdir()
    assert script("predict", *argv, "--save-path", tmp_path / "out") == RAN
    assert len(list((tmp_path / "out/masks").iterdir())) == len(ODD_NAMES)
    (odd / "folder.jpg").rmdir()

    folders = ["--config", toy.config, "--set", "data.unlabeled={images: odd}"]
    short = ["--set", "epochs=1", "epoch_length=1"]
    assert script("fixmatch", *folders, "--save-path", tmp_path / "x", *short) == RAN
    reports = [tmp_path / "report.json", tmp_path / "report.html"]
    argv = [*folders, "--json", reports[0], "--html", reports[1]]
    assert script("tools.check_data", *argv) == RAN
    assert all(report.stat().st_size for report in reports)


def test_neither_masks_nor_overlays_are_overwritten(toy, tmp_path):
    assert script("supervised", *toy.argv(tmp_path / "run", "--set", "epochs=1")) == RAN
    precious = tmp_path / "out/overlays/v0.jpg"
    precious.parent.mkdir(parents=True)
    precious.touch()
    argv = ["--config", toy.config, "--checkpoint", tmp_path / "run/best.pth", "--images",
            toy.root / "images/v0.jpg", "--save-path", tmp_path / "out"]  # fmt: skip
    assert script("predict", *argv) == REFUSED and precious.stat().st_size == 0


@pytest.mark.parametrize("target", [".", "..", "/"])
def test_links_in_circles(target, tmp_path):
    """Refuse circular links: two in a folder would make a walk of 2^40 steps."""
    (tmp_path / "a/b").mkdir(parents=True)
    Image.new("RGB", (3, 2)).save(tmp_path / "a/b/c.png")
    (tmp_path / "elsewhere").symlink_to("a/b")
    assert list(files_by_stem(tmp_path)) == ["a/b/c", "elsewhere/c"]
    for name in ("back", "again"):
        (tmp_path / "a/b" / name).symlink_to(target)
    with pytest.raises(UserError, match="(back|again): a link to a folder that it is in"):
        files_by_stem(tmp_path / "a")


def test_what_pillow_remarks_is_not_said(tmp_path):
    """Print one error, without warnings of Pillow, for a TIFF with a truncated directory."""
    Image.new("L", (60, 40)).save(tmp_path / "a.tif")
    broken = bytearray((tmp_path / "a.tif").read_bytes())
    broken[5] ^= 32
    (tmp_path / "a.tif").write_bytes(broken)
    look = f"""
from pathlib import Path
from dataset.file_content import read_content
from util.errors import UserError
try:
    read_content(Path({str(tmp_path / "a.tif")!r}))
except UserError as error:
    print(error)
"""
    done = run_python("-c", look)  # pytest changes the filters of warnings
    assert "not a readable image" in done.output() and not done.err


LACKS = {
    "Python": MemoryError(),
    "the CPU": RuntimeError("[x] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
    "a GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
    "a GPU that others use": RuntimeError("CUDA error: out of memory\nSearch for ..."),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
    "NCCL": RuntimeError("NCCL error: unhandled\nCuda failure 2 'out of memory'"),
    "the CPU, in a data worker": RuntimeError(
        "Caught it in a worker.\nRuntimeError: [x] can't allocate memory: you tried 9 bytes"
    ),
}


@pytest.mark.parametrize("who", LACKS)
def test_lack_of_memory(who, toy, tmp_path, monkeypatch, training_error):
    def fit(_):
        raise LACKS[who]

    monkeypatch.setattr(Trainer, "fit", fit)
    line = training_error(SupOnly, toy.argv(tmp_path / "run"))
    assert line.startswith("error: out of memory (") and "lower micro_batch" in line


def test_other_errors_keep_their_traceback(toy, tmp_path, monkeypatch):
    def fit(_):
        raise RuntimeError("a mistake of this project")

    monkeypatch.setattr(Trainer, "fit", fit)
    with pytest.raises(RuntimeError, match="a mistake"):
        called(lambda: main(SupOnly), *toy.argv(tmp_path / "run"))


def test_no_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    log._commit.cache_clear()
    assert log.versions()["commit"] == "unknown"
    log._commit.cache_clear()


def test_names_that_the_terminal_cannot_show(toy, tmp_path, monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", terminal)
    toy.tree["data"]["classes"] = ["空", "木", "道"]
    toy.tree["epochs"] = 1
    toy.config.write_text(repr(toy.tree), encoding="utf-8")  # a dict in Python is one in YAML
    called(lambda: main(SupOnly), *toy.argv(tmp_path / "run"))
    terminal.flush()
    assert rb"\u7a7a" in terminal.buffer.getvalue()
    assert "空" in (tmp_path / "run/log.txt").read_text(encoding="utf-8")
