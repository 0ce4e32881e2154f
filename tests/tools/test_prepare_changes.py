"""LEVIR-CD and WHU-CD from small zip files of several layouts."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset import protocols
from dataset.protocols import PublishedSplitFile, fingerprint
from dataset.reader import Reader
from dataset.validation import read_splits
from tests.conftest import REPOSITORY
from tests.miniature import encoded, zipped
from tools.prepare import __main__ as prepare
from tools.prepare.official.change_pairs import FOLDERS, LEVIR, WHU
from util.config.loading import load_config

NAMES = ["test_1_1.png", "train_1_1.png", "train_1_2.png", "val_1_1.png"]
KINDS = [("levir", "LEVIR-CD256.zip", ""), ("levir", "LEVIR-CD.zip", "LEVIR-CD256/"),
         ("whu", "WHU-CD-256.zip", "DATA/WHU-CD/"), ("whu", "WHU-CD.zip", "")]  # fmt: skip


def pieces():
    """Return the files of the three folders, by folder and name."""
    rng = np.random.default_rng(0)
    files = {}
    for name in NAMES:
        for folder in FOLDERS[:2]:
            files[f"{folder}/{name}"] = encoded(rng.integers(0, 256, (8, 8, 3), np.uint8))
        files[f"label/{name}"] = encoded(rng.choice(np.array([0, 255], np.uint8), (8, 8)))
    return files


def packed(path, files, top=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zipped({top + name: content for name, content in files.items()}))
    return path.parent


@pytest.fixture
def few(tmp_path, monkeypatch):
    """Expect four pairs only, and work in a temporary folder."""
    for dataset in (LEVIR, WHU):
        monkeypatch.setattr(dataset, "counts", {"pairs": len(NAMES)})
    monkeypatch.chdir(tmp_path)


def made(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.png")}


@pytest.mark.parametrize("dataset, title, top", KINDS)
def test_files_stay_as_they_are(dataset, title, top, few, run):
    beside = {"list/train.txt": b"train_1_1.png\n", "readme.md": b"A/B", "A/._x.png": b"macOS"}
    source = packed(Path("downloads", title), pieces() | beside, top)
    assert "pairs 4; 12 files made" in run(prepare, dataset, "--source", source).output()
    assert made(Path("data", dataset)) == pieces()
    assert "0 files made, 12 were there" in run(prepare, dataset, "--source", source).output()


@pytest.mark.parametrize("folder", ["WHU-CD-256", "WHU-CD-256/WHU-CD-256"])
def test_unpacked_downloads_are_found(folder, few, run):
    for name, content in pieces().items():
        path = Path("downloads", folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert run(prepare, "whu", "--source", "downloads")[0] == 0
    assert run(prepare, "whu", "--source", "downloads/WHU-CD-256", "--root", "again")[0] == 0
    assert made(Path("data/whu")) == made(Path("again")) == pieces()


def test_the_config_reads_what_was_made(few, run):
    run(prepare, "levir", "--source", packed(Path("downloads/LEVIR-CD.zip"), pieces()))
    lists = {"train": NAMES[1:2], "more": NAMES[2:3], "val": NAMES[3:], "test": NAMES[:1]}
    for kind, names in lists.items():
        Path(f"{kind}.txt").write_text("".join(f"{name}\n" for name in names))
    config = load_config(REPOSITORY / "configs/levir.yaml", [
        "data.labeled=train.txt", "data.unlabeled=more.txt", "data.val=val.txt",
    ])  # fmt: skip
    labeled, unlabeled, _ = read_splits(config.data, unlabeled=True)
    (sample,), (bare,) = labeled.samples, unlabeled.samples
    assert bare.mask is None and bare.second == "B/train_1_2.png"
    truth = np.asarray(Image.open("data/levir/label/train_1_1.png"))
    np.testing.assert_array_equal(np.asarray(Reader(config.data).mask(sample)), truth == 255)


def test_incomplete_downloads_are_an_error_or_with_partial_a_warning(few, run):
    files = pieces()
    del files["B/train_1_2.png"]
    source = packed(Path("downloads/LEVIR-CD256.zip"), files, "LEVIR-CD256/")
    err = run(prepare, "levir", "--source", source).mistake()
    assert not list(Path().rglob("data/levir/*"))
    assert "LEVIR-CD256.zip: LEVIR-CD256/B/ lacks 1 name, such as train_1_2.png" in err
    code, out, err = run(prepare, "levir", "--source", source, "--partial")
    assert code == 0 and "pairs 3; 9 files made" in out and "expected 4" in err
    assert "A/train_1_2.png" not in made(Path("data/levir"))


@pytest.mark.parametrize("folders, found", [
    ([""], "holds 0 folders with A, B and label, expected one"),
    (["train", "val"], "holds 2 folders with A, B and label, expected one"),
])  # fmt: skip
def test_other_downloads_are_refused(folders, found, few, run):
    files = {f"{top}/{name}": content for top in folders for name, content in pieces().items()}
    if found.startswith("holds 0"):
        files = {name: content for name, content in pieces().items() if "label" not in name}
    source = packed(Path("downloads/LEVIR-CD.zip"), files)
    assert found in run(prepare, "levir", "--source", source).mistake()


def test_names_are_compared_with_the_published_lists_at_hand(few, run, monkeypatch):
    text = b"whucd_00001.png\ntrain_1_1.png\n"
    listed = [PublishedSplitFile("whu", "5%/labeled", "x", ("a/b",), fingerprint(text))]
    monkeypatch.setattr(protocols, "read_protocols", lambda: listed)
    source = packed(Path("downloads/WHU-CD.zip"), pieces())
    path = Path("splits/whu/5%/labeled.txt")
    path.parent.mkdir(parents=True)
    path.write_bytes(text)
    err = run(prepare, "whu", "--source", source).mistake()
    assert f"compared with {path}, it lacks 1 name, such as whucd_00001.png" in err
    path.write_bytes(b"another list\n")  # not the published one, so not compared
    assert run(prepare, "whu", "--source", source)[0] == 0


def test_both_are_counted_as_published():
    lists = protocols.read_protocols()
    for name, dataset in (("levir", LEVIR), ("whu", WHU)):
        parts = [p.fingerprint.entries for p in lists
                 if p.dataset == name and p.name in ("train", "val", "test")]  # fmt: skip
        assert dataset.counts == {"pairs": sum(parts)} and len(parts) == 3
