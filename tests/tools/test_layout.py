"""Split files that follow from the files on disk."""

from pathlib import Path

import pytest

from dataset import protocols
from tests.conftest import touch, tree, write_lines
from tools.splits.layout import files_by_name
from util.errors import UserError


def ade20k_val():
    return [
        f"images/validation/ADE_val_{i:08d}.jpg annotations/validation/ADE_val_{i:08d}.png"
        for i in range(1, 2001)
    ]


def test_generate_the_published_val_list(splits, tmp_path):
    touch(tmp_path / "ade", [line.split()[0] for line in ade20k_val()])
    touch(tmp_path / "ade", ["images/training/ADE_train_00000001.jpg"])
    out = splits("generate", "ade20k/val", "--root", "ade").output()
    assert "2000 entries, written; the list of LiheYoung/UniMatch-V2, woo" in out
    assert Path("splits/ade20k/val.txt").read_text().splitlines() == ade20k_val()
    line = splits("generate", "ade20k/all", "--root", "ade").mistake()
    assert "ade: its files do not give the published ade20k/all/labeled" in line
    assert "found 1 entry" in line and "expected 20210" in line
    Path("ade/images/validation/ADE_val_00000003.jpg").unlink()
    Path("splits/ade20k/val.txt").unlink()
    line = splits("generate", "ade20k/val", "--root", "ade").mistake()
    assert "found 1999 entries" in line and not tree(Path("splits"))


def test_the_rest_of_an_incomplete_download_is_refused(splits):
    """No list of all training images of COCO is published, only their number is known."""
    touch(Path("coco"), ["train2017/1.jpg masks/1.png", "val2017/2.jpg masks/2.png"])
    write_lines(Path("splits/coco/1_32/labeled.txt"), ["train2017/1.jpg masks/1.png"])
    line = splits("generate", "coco/1_32", "--root", "coco").mistake()
    assert "coco: found 1 training image, expected 118287" in line


TRAIN = {
    "pascal": [f"JPEGImages/2007_{i}.jpg SegmentationClass/2007_{i}.png" for i in range(5)],
    "cityscapes": [
        f"leftImg8bit/train/{c}/{c}_0_leftImg8bit.png "
        f"gtFine/train/{c}/{c}_0_gtFine_labelTrainIds.png"
        for c in "abc"
    ],
    "coco": [f"train2017/00{i}.jpg masks/00{i}.png" for i in range(4)],
}
VAL = {
    "pascal": "JPEGImages/2008_1.jpg SegmentationClass/2008_1.png",
    "cityscapes": "leftImg8bit/val/d/d_leftImg8bit.png gtFine/val/d/d_gtFine_labelTrainIds.png",
    "coco": "val2017/009.jpg masks/009.png",
}


@pytest.fixture
def unverified(splits, tmp_path, monkeypatch):
    """Make the files of each dataset in the folder of its name; no hash of a list is published."""
    (tmp_path / "protocols.yaml").write_text("{}")
    monkeypatch.setattr(protocols, "PROTOCOLS", tmp_path / "protocols.yaml")
    for dataset, lines in TRAIN.items():
        touch(Path(dataset), [*lines, VAL[dataset]])
        write_lines(Path(f"splits/{dataset}/few/labeled.txt"), lines[1:2])
    touch(Path("pascal"), ["JPEGImages/2008_9.jpg"])  # an image without a mask is in neither set
    write_lines(Path("pascal/ImageSets/Segmentation/val.txt"), ["2008_1"])


@pytest.mark.parametrize(
    "dataset, everything",
    [("pascal", "all/labeled"), ("cityscapes", "all/train"), ("coco", "all/labeled")],
)
def test_generate_the_rest(dataset, everything, splits, unverified):
    train = TRAIN[dataset]
    out = splits("generate", f"{dataset}/few", "--root", dataset).output()
    assert out.count("written; not in splits/protocols.yaml") == 2
    splits("generate", f"{dataset}/all", "--root", dataset).output()
    found = {name: text.splitlines() for name, text in tree(Path("splits", dataset)).items()}
    assert found == {
        "few/labeled.txt": train[1:2],
        "few/unlabeled.txt": train[:1] + train[2:],
        "val.txt": [VAL[dataset]],
        f"{everything}.txt": train,
    }


@pytest.mark.parametrize("pattern, stems", [
    ("day/m_*.png", ["1_x", "2_x"]), ("day/m_*_x.png", ["1", "2"]),
    ("day/*.png", ["m_1_x", "m_2_x"]), ("day/", ["m_1_x", "m_2_x"]), ("day", ["m_1_x", "m_2_x"]),
])  # fmt: skip
def test_star_in_patterns(pattern, stems, tmp_path):
    files = ["day/m_1_x.png", "day/m_2_x.png"]
    touch(tmp_path, files)
    assert files_by_name(tmp_path, pattern) == dict(zip(stems, files, strict=True))
    with pytest.raises(UserError, match=r"m_\*_\*.png: expected a pattern with one \*"):
        files_by_name(tmp_path, "day/m_*_*.png")
    for outside in ("../m", str(tmp_path / "day/*.png")):
        with pytest.raises(UserError, match="leads out of .*; expected a folder or pattern below"):
            files_by_name(tmp_path, outside)


def test_pascals_validation_images(splits, unverified):
    """Read names from ImageSets, val.txt or --names, as both sets share the folders."""
    argv = ["generate", "pascal/few", "--root", "pascal"]
    line = splits(*argv, "--names", "none.txt").mistake()
    assert "none.txt: cannot be read as text" in line
    splits(*argv).output()
    before = tree(Path("splits"))
    write_lines(Path("names.txt"), ["2008_1", "2007_4"])
    line = splits(*argv, "--names", "names.txt").mistake()
    assert "splits/pascal/val.txt: exists with other lines" in line

    Path("pascal/ImageSets/Segmentation/val.txt").unlink()
    assert splits(*argv)[0] == 0 and tree(Path("splits")) == before
    Path("splits/pascal/val.txt").unlink()
    line = splits(*argv).mistake()
    assert "ImageSets/Segmentation/val.txt: no such file" in line and "--names" in line


def test_generate_refuses(splits, unverified):
    for name, root, words in (
        ("whu/5%", "coco", "whu/5%: expected DATASET/PARTITION of"),
        ("coco", "coco", "coco: expected DATASET/PARTITION of"),
        ("coco/none", "coco", "none/labeled.txt: no such split file"),
        ("coco/few", "pascal", "pascal/train2017: no such folder"),
    ):
        assert words in splits("generate", name, "--root", root).mistake()
    argv = ["generate", "coco/few", "--root", "coco"]
    assert "--names x: the sets of coco follow" in splits(*argv, "--names", "x").mistake()
    write_lines(Path("splits/coco/few/labeled.txt"), [*TRAIN["coco"], VAL["coco"]])
    line = splits(*argv).mistake()
    assert "few/labeled.txt line 5: 'val2017/009.jpg' is not among the 4 training images" in line
    assert not Path("splits/coco/val.txt").exists()
