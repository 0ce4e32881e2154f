"""`tools.prepare init` on image pairs: three folders, split files of three columns."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import evaluate
from dataset.folders import read_samples
from dataset.reader import Reader
from fixmatch import FixMatch
from tests.conftest import REPOSITORY
from tests.own_images import TINY, georeference, save_image
from tools.check_data import __main__ as check_data
from tools.prepare import __main__ as prepare
from util.config.loading import load_config

NAMES = [f"town {i % 2}/{i}" for i in range(6)]
SIZE = (40, 36)
CHANGE = Path(os.environ.get("CHANGE", REPOSITORY.parent / "shared/data/change"))
needs_pairs = pytest.mark.skipif(
    not CHANGE.is_dir(), reason="needs pairs of DSIFN; CHANGE names them"
)


@pytest.fixture
def init(run, tmp_path, monkeypatch):
    """Run `init` in a folder of its own with six pairs; the last one has no mask."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in NAMES:
        changed = rng.random((9, 10)).repeat(4, 0).repeat(4, 1) < 0.3
        files = {f"A/{name}.jpg": rng.integers(0, 256, (*changed.shape, 3), np.uint8),
                 f"B/{name}.png": rng.integers(0, 256, (*changed.shape, 3), np.uint8),
                 f"label/{name}.png": changed * np.uint8(255)}  # fmt: skip
        for path, array in files.items():
            if path != f"label/{NAMES[-1]}.png":
                save_image(array, path)

    def command(*more):
        return run(prepare, "init", "--images", "A", "--second", "B", "--masks", "label",
                   "--out", "mine.yaml", *more)  # fmt: skip

    return command


def test_from_three_folders_to_an_epoch(init, run, train):
    out = init("--val", "0.4").output()
    assert "3 labeled, 1 unlabeled, 2 val" in out
    assert "method   python" in out
    assert "pairs    of two dates: A, B" in out
    config = load_config("mine.yaml")
    data = config.data
    assert (data.pair, data.classes) == ("column", ["unchanged", "changed"])
    assert (data.label_map, data.scale) == ({"0": 0, "255": 1}, (0.8, 1.2))
    assert config.evaluation.select == "iou:changed"
    lines = Path(data.labeled).read_text().splitlines()
    assert all(len(line.split("\t")) == 3 for line in lines)  # by tabs, as names have spaces
    (bare,) = read_samples(data.unlabeled, data, masks=False).samples
    files = (f"A/{NAMES[-1]}.jpg", f"B/{NAMES[-1]}.png", None)
    assert (bare.image, bare.second, bare.mask) == files
    for sample in read_samples(data.labeled, data, masks=True).samples:
        stems = {Path(*Path(p).parts[1:]).with_suffix("")
                 for p in (sample.image, sample.second, sample.mask)}  # fmt: skip
        assert len(stems) == 1
        truth = np.asarray(Image.open(Path(data.root, sample.mask))) == 255
        np.testing.assert_array_equal(np.asarray(Reader(data).mask(sample)), truth)
    assert run(check_data, "--config", "mine.yaml")[0] == 0
    train(FixMatch, ["--config", "mine.yaml", "--save-path", "run", "--set", *TINY])
    out = run(
        evaluate, "--config", "mine.yaml", "--checkpoint", "run/best.pth", "--set", *TINY
    ).output()
    assert "changed" in out


def spoil(what):
    first, last = NAMES[0], NAMES[-1]
    if what == "no later image":
        Path(f"B/{last}.png").unlink()
    elif what == "no earlier image":
        Path(f"A/{last}.jpg").unlink()
    elif what == "size":
        Image.new("RGB", (9, 9)).save(f"B/{last}.png")
    elif what == "mask size":
        Image.new("L", (9, 9)).save(f"label/{first}.png")
    elif what == "grid":
        georeference(Path(f"A/{first}.jpg"), Path(f"B/{first}.png"), 2)
    elif what == "other folder":
        save_image(Image.new("RGB", SIZE), f"C/{first}.png")
    elif what.endswith("value") or what.endswith("values"):
        for path in Path("label").rglob("*.png"):
            mask = np.array(Image.open(path)) * (what != "one value")
            mask[:8, :8] = 128 if what == "three values" else 0
            Image.fromarray(mask).save(path)


@pytest.mark.parametrize("what, options, parts", [
    ("no later image", [], ["--images", "5.jpg", "the other date has no image named"]),
    ("no earlier image", [], ["--second", "5.png", "the other date has no image named"]),
    ("size", [], ["B/town 1/5.png: the later image is 9x9", "is 40x36; expected equal sizes"]),
    ("grid", [], ["B/town 0/0.tif: 2.0 pixels off "]),
    ("mask size", [], ["0.png: the mask is 9x9"]),
    ("one value", [], ["found 1 value: 0, which makes 1 class; expected 2 to 254. Fix: all"]),
    ("", ["--second", "A"], ["the folder of the earlier images"]),
    ("", ["--second", "none"], ["none: no such folder"]),
    ("", ["--unlabeled", "C"], ["--unlabeled: not for pairs. Fix: put unlabelled pairs into"]),
    ("other folder", ["--val", "C", "label"], ["not in --images", "a share or a folder"]),
])  # fmt: skip
def test_refused_in_one_line(what, options, parts, init):
    spoil(what)
    err = init(*options).mistake()
    assert all(part in err for part in parts), err
    assert not Path("mine.yaml").exists() and not Path("splits").exists()


def test_other_sizes_of_a_pairs_files_are_all_named(init):
    first = NAMES[0]
    Image.new("RGB", (9, 9)).save(f"B/{first}.png")
    spoil("mask size")
    code, out, err = init()
    assert code == 2 and "2 files cannot be used" in err, err
    assert f"B/{first}.png: the later image is 9x9" in out and "0.png: the mask is 9x9" in out


def test_all_pairs_have_masks(init):
    for folder in "AB":
        next(Path(folder).rglob("5.*")).unlink()
    out = init("--val", "0.4").output()
    assert "method   none without unlabelled images; add pairs without a mask to --images" in out


@pytest.mark.parametrize("named", ["255=changed,0=Unchanged", "0=same,255=changed",
                                   "255=changed,0=same"])  # fmt: skip
def test_the_changed_class_is_selected_in_any_order(named, init):
    init("--classes", named).output()
    assert load_config("mine.yaml").evaluation.select == "iou:changed"


@pytest.mark.parametrize("told, classes, last", [
    ([], ["unchanged", "class_128", "class_255"], 2),
    (["--classes", "0=same,128=built,255=felled"], ["same", "built", "felled"], 2),
    (["--classes", "0=unchanged,255=changed,128=ignore"], ["unchanged", "changed"], 1),
    (["--ignore", "128"], ["unchanged", "changed"], 1),
])  # fmt: skip
def test_several_classes_of_change(told, classes, last, init, run):
    spoil("three values")
    out = init(*told).output()
    config = load_config("mine.yaml")
    assert config.data.classes == classes
    assert config.data.label_map == {"0": 0, "128": 1 if last == 2 else 255, "255": last}
    assert config.evaluation.select == ("miou" if last == 2 else "iou:changed")
    if not told:
        assert "--classes 0=unchanged,128=class_128,255=class_255" in out
        assert run(check_data, "--config", "mine.yaml")[0] == 0


@needs_pairs
def test_real_pairs_from_their_folders_to_a_config(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a, b, masks = (CHANGE / "dsifn" / folder for folder in ("A", "B", "label"))
    out = run(prepare, "init", "--images", a, "--second", b, "--masks", masks, "--val", 0.3,
              "--out", "mine.yaml").output()  # fmt: skip
    assert "7 labeled" in out and "3 val" in out
    assert "changed" in run(check_data, "--config", "mine.yaml").output()
