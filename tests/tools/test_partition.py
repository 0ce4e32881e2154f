"""New partitions and folds with `tools.splits make`."""

import random
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from dataset.samples import Origin, Sample
from dataset.split_files import read_split_file, write_split_files
from dataset.validation import read_splits
from tests.conftest import touch, tree, write_lines
from tools.splits.folds import draw_folds
from tools.sweep.spec import expand, read_sweep
from util.config.loading import load_config
from util.errors import UserError

LINES = [f"images/{i}.jpg masks/{i}.png" for i in range(8)]


def samples(root, count, classes=0, extra=0):
    """Write images with masks; each of the last ones shows a rare class."""
    for folder in ("images", "masks"):
        (root / folder / "day").mkdir(parents=True)
    for i in random.Random(0).sample(range(count), count):  # files in random order
        Image.new("RGB", (4, 4)).save(root / f"images/day/{i:03d}.jpg")
        mask = np.zeros((4, 4), np.uint8)
        mask[0, 0], mask[1, 1] = 255, max(0, classes - count + i + 1)
        Image.fromarray(mask).save(root / f"masks/day/{i:03d}.png")
    for i in range(extra):
        Image.new("RGB", (4, 4)).save(root / f"images/day/extra {i}.png")


def write_config(**data):
    files = {"name": "x", "root": "data", "labeled": "train.txt", "val": "val.txt"}
    tree = {"data": files | data, "crop_size": 33, "epochs": 1, "batch_size": 2}
    Path("c.yaml").write_text(yaml.safe_dump(tree))


def drawn(out):
    return {
        path.stem: [s.image for s in read_split_file(path, masks=False).samples]
        for path in Path(out).glob("*.txt")
    }


def test_make_is_reproducible_and_nested(splits):
    samples(Path("data"), 41, extra=2)
    for out, *more in (("8", "--labeled", "1/8"), ("again", "--labeled", "0.125"),
                       ("4", "--labeled", "1/4"), ("seed", "--labeled", "1/8", "--seed", "1"),
                       ("val", "--labeled", "1/8", "--val", "0.1"),
                       ("val4", "--labeled", "9", "--val", "0.1")):  # fmt: skip
        splits("make", "--root", "data", "--out", out, *more).output()
    assert tree(Path("8")) == tree(Path("again"))
    eighth, quarter, other = drawn("8"), drawn("4"), drawn("seed")
    assert len(eighth["labeled"]) == 6 and len(quarter["labeled"]) == 11
    assert set(eighth["labeled"]) < set(quarter["labeled"])
    assert eighth["labeled"] != other["labeled"]
    # Drawn when this test was written; every machine and version must draw the same.
    names = [Path(image).stem for image in eighth["labeled"]]
    assert names == ["002", "013", "021", "023", "035", "039"]
    for lists in (eighth, quarter, other, drawn("val")):
        every = [image for images in lists.values() for image in images]
        assert len(every) == len(set(every)) == 43 and lists["labeled"] == sorted(lists["labeled"])
        assert "images/day/extra 0.png" in lists["unlabeled"]
    val, val4 = drawn("val"), drawn("val4")
    assert len(val["val"]) == 5 and len(val["labeled"]) == 5 and len(val4["labeled"]) == 9
    assert val["val"] == val4["val"] and set(val["labeled"]) < set(val4["labeled"])
    assert all(s.mask for s in read_split_file(Path("8/labeled.txt"), masks=True).samples)


def test_make_from_a_list_in_any_order(splits):
    lines = [*LINES, "images/a b.jpg\tmasks/a b.png"]
    write_lines(Path("a.txt"), lines)
    write_lines(Path("b.txt"), lines[::-1])
    for name in ("a", "b"):
        argv = ["make", "--list", f"{name}.txt", "--labeled", "8", "--out", name]
        splits(*argv).output()
    assert "make: --images needs --root" in splits(*argv, "--images", "images").mistake()
    assert tree(Path("a")) == tree(Path("b"))
    both = Path("a/labeled.txt").read_text() + Path("a/unlabeled.txt").read_text()
    assert sorted(both.splitlines()) == sorted(lines)


@pytest.fixture
def config(tmp_path):
    """Write a config of data/ with colours for classes, two for one class, and ignored colours."""
    samples(Path("data"), 30, classes=5, extra=2)  # classes 1 to 5 are in one image each
    colours = np.array([[i, 2 * i % 256, 200] for i in range(256)], np.uint8)
    for path in Path("data/masks/day").iterdir():
        mask = np.array(Image.open(path))
        mask[3, 3] = int(path.stem) % 40 + 100  # ignored by the label map
        Image.fromarray(colours[mask]).save(path)
    lines = [f"images/day/{i:03d}.jpg masks/day/{i:03d}.png" for i in range(30)]
    write_lines(Path("train.txt"), lines[10:])
    write_lines(Path("val.txt"), lines[:10])
    classes = {f"{i},{2 * i},200": min(i, 4) for i in range(6)}
    write_config(classes=list("abcde"), label_map=classes | {"other": "ignore"})
    return ["make", "--config", "c.yaml"]


def test_stratified_partition_shows_every_class_of_the_config(splits, config):
    for labeled, shown in (("4", "5 of 5 classes\n"), ("1/2", "5 of 5 classes\n"),
                           ("3", "4 of 5 classes; not ")):  # fmt: skip
        out = splits(*config, "--stratify", "--labeled", labeled, "--out", labeled[0]).output()
        assert f"labelled images show {shown}" in out
        assert "val.txt: 10 validation images, as the config has them" in out
    assert drawn("4").keys() == {"labeled", "unlabeled"}
    assert len(drawn("4")["labeled"]) == 4 and len(drawn("1")["labeled"]) == 10
    assert set(drawn("4")["labeled"]) < set(drawn("1")["labeled"])

    Path("data/masks/day/017.png").write_bytes(b"")
    line = splits(*config, "--stratify", "--labeled", "5", "--out", "6").mistake()
    assert "masks/day/017.png: not a readable image" in line


def test_a_configs_images_without_masks_stay_unlabelled(splits, config):
    folder = "data.unlabeled=[{images: more, root: data}]"
    Path("data/more").mkdir()
    for path in Path("data/images/day").glob("extra*"):
        path.rename(Path("data/more", path.name))
    splits(*config, "--labeled", "1/5", "--out", "o", "--set", folder).output()
    lists = drawn("o")
    assert len(lists["labeled"]) == 4 and len(lists["unlabeled"]) == 18
    assert {"more/extra 0.png", "more/extra 1.png"} < set(lists["unlabeled"])
    Path("elsewhere").mkdir()
    Image.new("RGB", (4, 4)).save("elsewhere/x.png")
    outside = "data.unlabeled={images: ., root: elsewhere}"
    for option, value, part in (("--val", "0.1", "--val 0.1"), ("--set", outside, "data.root"),
                                ("--root", "data", "--root: not allowed with argument --config"),
                                ("--masks", "m", "make: --masks needs --root")):  # fmt: skip
        assert part in splits(*config, "--labeled", "1/5", "--out", "o", option, value).mistake()
    line = splits("make", "--root", "data", "--stratify", "--labeled", "5", "--out", "o").mistake()
    assert "make: --stratify needs --config" in line


PAIRS = {
    "column": "column",
    "elsewhere": "column",
    "names": {"first": "A", "second": "B", "masks": "label"},
}


@pytest.mark.parametrize("form", PAIRS)
def test_lists_of_pairs_are_read_again(form, splits):
    """Keep the lines of pairs; paths below another root become relative to data.root."""
    for folder in ("A", "B", "label"):
        Path("data", folder).mkdir(parents=True)
        for i in range(10):
            mask = np.full((4, 4), 255 * (i == 7), np.uint8)
            Image.fromarray(mask).save(f"data/{folder}/{i}.png")
    names = [f"{i}.png" for i in range(10)]
    lines = names if form == "names" else [f"A/{n} B/{n} label/{n}" for n in names]
    write_lines(Path("train.txt"), lines[:8])
    write_lines(Path("val.txt"), lines[8:])
    data = {"classes": ["same", "new"], "pair": PAIRS[form], "label_map": {0: "same", 255: "new"}}
    if form == "elsewhere":
        pool = {kind: {"list": f"{kind}.txt", "root": "data"} for kind in ("train", "val")}
        data |= {"root": ".", "labeled": pool["train"], "val": pool["val"]}
    write_config(**data)
    argv = ["make", "--config", "c.yaml", "--labeled", "1/4", "--stratify", "--out", "quarter"]
    assert "2 of 2 classes" in splits(*argv).output()
    labeled, unlabeled = (
        Path(f"quarter/{kind}.txt").read_text().splitlines() for kind in ("labeled", "unlabeled")
    )
    below = "data/" if form == "elsewhere" else ""
    lines = [" ".join(f"{below}{file}" for file in line.split()) for line in lines]
    assert lines[7] in labeled and len(labeled) == 2
    assert sorted(labeled + unlabeled) == sorted(lines[:8])
    found = load_config("c.yaml", [f"data.{k}=quarter/{k}.txt" for k in ("labeled", "unlabeled")])
    again = read_splits(found.data, unlabeled=True)
    assert len(again.labeled.samples) == 2 and len(again.unlabeled.samples) == 6
    sample = again.labeled.samples[[line in lines[7] for line in labeled].index(True)]
    files = ("A/7.png", "B/7.png", "label/7.png")
    assert (sample.image, sample.second, sample.mask) == tuple(below + file for file in files)


def test_names_of_pairs_below_another_root_are_refused(splits):
    """A list of names cannot say in which of two roots the three folders are."""
    Path("data").mkdir()
    write_lines(Path("train.txt"), ["1.png", "2.png", "3.png"])
    write_lines(Path("val.txt"), ["4.png"])
    labeled = ["train.txt", {"list": "train.txt", "root": "more"}]
    write_config(classes=["same", "new"], pair=PAIRS["names"], labeled=labeled)
    line = splits("make", "--config", "c.yaml", "--labeled", "2", "--out", "out").mistake()
    assert "train.txt line 1: A/1.png is not below data.root (data)" in line
    assert not Path("out").exists()


def test_a_root_is_found_from_any_folder(splits, tmp_path, monkeypatch):
    (tmp_path / "repository/data").mkdir(parents=True)
    samples(tmp_path / "repository/data/x/..y", 4)
    monkeypatch.setattr("util.paths.REPOSITORY", tmp_path / "repository")
    folders = {"images": "..y/images", "masks": "..y/masks"}
    write_config(root="data/x", classes=["a", "b"], labeled=folders)
    touch(Path("repository/data/x"), ["v.jpg v.png"])
    write_lines(Path("val.txt"), ["v.jpg v.png"])
    splits("make", "--config", "c.yaml", "--labeled", "2", "--out", "out").output()
    assert all(image.startswith("..y/images/day/0") for image in drawn("out")["labeled"])


def test_make_refuses(splits):
    samples(Path("data"), 6)
    argv = ["make", "--root", "data", "--out", "out", "--labeled"]
    for labeled, message in (
        ("9/8", "--labeled 9/8: expected a share"),
        ("", "--labeled : expected a share"),
        ("x", "--labeled x: expected a share"),
        ("1/0", "--labeled 1/0: expected a share"),
        ("-2", "--labeled -2: expected a share"),
        ("1.0", "--labeled 1.0: expected a share"),
        ("2e9999", "--labeled 2e9999: expected a share"),
        ("6", "6 images with a mask: --val takes 0, --labeled 6 of the other 6"),
        ("0", "--labeled 0 of the other 6; expected at least 1"),
    ):
        assert message in splits(*argv[:-1], f"--labeled={labeled}").mistake()
    assert "data/labels: no such folder" in splits(*argv, "2", "--masks", "labels").mistake()
    Image.new("L", (4, 4)).save("data/other.png")
    line = splits(*argv, "2", "--masks", "*.png").mistake()
    assert "no file in images has one of its name in *.png" in line
    assert not Path("out").exists()

    for val in (6, 7):
        _, _, line = splits(*argv, "1", "--val", val)
        assert f"--val takes {val}, --labeled 1 of the other 0" in line
    splits(*argv, "2").output()
    before = tree(Path("out"))
    line = splits(*argv, "3").mistake()
    assert "out/labeled.txt: exists with other lines (found 2 entries" in line
    assert tree(Path("out")) == before and "already there" in splits(*argv, "1/3")[1]
    Path("data/images/day/000.png").touch()
    assert "images/day/000.png: has the same name as 000.jpg" in splits(*argv, "2").mistake()


def test_patterns_pair_files(splits):
    touch(Path("data"), [f"cam/{c}/{c}_image.{e} gt/{c}/{c}_ids.png"
                         for c in "abc" for e in ("jpg", "txt")])  # fmt: skip
    argv = ["--images", "cam/*_image.jpg", "--masks", "gt/*_ids.png", "--labeled", "2"]
    splits("make", "--root", "data", *argv, "--out", "out").output()
    line = splits("make", *argv, "--out", "out").mistake()
    assert "one of the arguments --config --root --list is required" in line
    line = splits("make", "--root", "data", *argv, "--out", "out", "--set", "epochs=3").mistake()
    assert "make: --set needs --config" in line
    lines = [line for text in tree(Path("out")).values() for line in text.splitlines()]
    assert sorted(lines) == [f"cam/{c}/{c}_image.jpg gt/{c}/{c}_ids.png" for c in "abc"]


@pytest.mark.parametrize("images, masks, lines", [
    (".", "gt", "./{0}.png gt/{0}.png"), ("*.png", "*_m.png", "{0}.png {0}_m.png"),
])  # fmt: skip
def test_masks_among_the_images_are_not_unlabelled_images(images, masks, lines, splits):
    wanted = [lines.format(c) for c in "abc"]
    touch(Path("data"), wanted)
    argv = ["--images", images, "--masks", masks, "--labeled", "2", "--out", "out"]
    splits("make", "--root", "data", *argv).output()
    found = [line for text in tree(Path("out")).values() for line in text.splitlines()]
    assert sorted(found) == wanted
    argv[1] = masks
    line = splits("make", "--root", "data", *argv).mistake()
    assert f"no file in {masks} has one of its name in {masks}" in line


def test_lists_are_written_whole_or_not_at_all(tmp_path):
    write_lines(tmp_path / "b.txt", LINES)
    with pytest.raises(UserError, match="b.txt: exists with other lines"):
        write_split_files({tmp_path / "a.txt": LINES, tmp_path / "b.txt": LINES[:2]})
    with pytest.raises(UserError, match="cannot be read|cannot be written"):
        write_split_files({tmp_path / "b.txt/a.txt": LINES})
    assert list(tree(tmp_path)) == ["b.txt"]


@pytest.mark.parametrize("more", [
    ["--stratify"], ["--labeled", "1/4"], ["--stratify", "--labeled", "1/4"],
])  # fmt: skip
def test_folds_are_disjoint_and_cover_the_labelled_images(more, splits, config):
    more = [*more, "--set", "epochs=3", "data.mean=[1, 2e-1, .5]"]
    splits(*config, "--folds", "3", "--out", "folds", *more).output()
    pool = {s.image for s in read_split_file(Path("train.txt"), masks=True).samples}
    pool |= {s.image for s in read_split_file(Path("val.txt"), masks=True).samples}
    folds = [drawn(f"folds/fold_{number}") for number in (1, 2, 3)]
    vals = [image for lists in folds for image in lists["val"]]
    assert sorted(vals) == sorted(pool)
    assert max(len(lists["val"]) for lists in folds) - min(len(f["val"]) for f in folds) <= 1
    for lists in folds:
        assert not set(lists["val"]) & {*lists["labeled"], *lists.get("unlabeled", [])}
        assert {*lists["val"], *lists["labeled"]} <= pool
        assert ("unlabeled" in lists) == ("--labeled" in more)
    # Equal split files are kept; other folds are refused.
    splits(*config, "--folds", "3", "--out", "folds", *more).output()
    assert splits(*config, "--folds", "4", "--out", "folds", *more)[0] == 2

    path = Path("folds/sweep.yaml")
    planned = expand(read_sweep(path), path)
    assert len(planned) == (6 if "--labeled" in more else 3)
    assert [str(p.load().data.val) for p in planned[:3]] == [
        f"folds/fold_{number}/val.txt" for number in (1, 2, 3)
    ]
    assert all(read_splits(p.load().data, unlabeled=False).val.samples for p in planned)
    assert planned[0].load() == load_config(
        "c.yaml", [*more[-2:], *(f"data.{list_}=folds/fold_1/{list_}.txt" for list_ in folds[0])]
    )


def test_stratified_folds_spread_every_class():
    shown = {f"{i:02}": frozenset({0, *([1] * (i % 5 == 0)), *([2] * (i < 6))}) for i in range(30)}
    origin = Origin(Path("list"), Path())
    samples = [Sample(image, f"{image}.png", 0, origin) for image in shown]
    parts = draw_folds(samples, 3, None, 0, shown)
    for label in (1, 2):
        held = [sum(label in shown[s.image] for s in part.val) for part in parts]
        assert held == [2, 2, 2]
    assert [len(part.val) for part in parts] == [10, 10, 10]
    for rng in map(random.Random, range(50)):  # sizes differ by one at most, whatever the classes
        shown = {s.image: frozenset(rng.sample(range(4), rng.randrange(4))) for s in samples[:9]}
        sizes = [len(part.val) for part in draw_folds(samples[:9], 4, None, 0, shown)]
        assert sorted(sizes) == [2, 2, 2, 3]


@pytest.mark.parametrize(("argv", "words"), [
    (["--folds", "1"], "--folds 1: expected 2 to"),
    (["--folds", "999"], "--folds 999: expected 2 to"),
    (["--folds", "3", "--val", "3"], "leave it out"),
    (["--folds", "3", "--out", "x\udcff"], "expected printable characters of UTF-8"),
    ([], "expected --labeled"),
    (["--labeled", "3", "--set", "data.labeled=null"], "--set data.labeled=FILE; or draw from --"),
])  # fmt: skip
def test_impossible_folds(argv, words, splits, config):
    err = splits(*config, "--out", "folds", *argv).mistake()
    assert words in err and not [*Path().glob("*/fold_1"), *Path().glob("folds")]
