"""Own data by config alone: folders instead of lists, label maps, images of more than 8 bits."""

import os
import unicodedata

import numpy as np
import pytest
import yaml
from PIL import Image

from dataset.bands import read_bands
from dataset.folders import names_by_stem, read_samples
from dataset.image_files import image_size, missing_file_hint
from dataset.samples import Origin
from dataset.split_files import Split, read_split_file, sample_line, scan_split_file
from dataset.validation import check_existence, check_files, read_splits, too_few
from fixmatch import FixMatch
from supervised import SupOnly
from tests.own_images import NAMES, TINY, exif_with_orientation, truth, write_images, write_masks
from util.config.data import Data, Folders
from util.config.loading import dump_config, load_config
from util.errors import UserError

RGB = Data(name="any", root=".", classes=["a", "b"], val="val.txt")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Make images in train/, val/ and more/, and masks in colour."""
    root = tmp_path_factory.mktemp("data")
    for part in ("train", "val"):
        write_masks(root / "masks" / part, write_images(root / "images" / part, 4), "rgb")
    write_images(root / "more", 3)
    return root


@pytest.fixture
def folders(root, tmp_path):
    tree = {
        "data": {
            "name": "mine",
            "root": str(root),
            "classes": NAMES,
            "labeled": {"images": "images/train", "masks": "masks/train"},
            "unlabeled": {"images": "more"},
            "val": {"images": "images/val", "masks": "masks/val"},
            "label_map": {"0,0,0": "a", "128,64,0": "b c", "0,128,128": 2, "other": "ignore"},
        },
        "crop_size": 33,
        "epochs": 1,
        "batch_size": 2,
    }

    def write(**data):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(tree | {"data": tree["data"] | data}))
        return path

    return write


def test_a_resumed_run_keeps_its_label_map(folders, train, training_error, tmp_path):
    config, save = folders(), tmp_path / "run"
    argv = ["--config", str(config), "--save-path", str(save), "--set", *TINY]
    train(SupOnly, argv)
    folders(label_map={"0, 0, 0": 0, "128,64,0": 1, "0,128,128": "Ünten", "other": 255})
    train(SupOnly, argv)  # the same map, written in another way
    folders(label_map={"0,0,0": 1, "128,64,0": 0, "0,128,128": 2, "other": 255})
    assert "data.label_map.0,0,0 (0 -> 1)" in training_error(SupOnly, argv)


def test_folders_match_by_relative_name(root):
    data = Data(name="own", root=root, classes=["a", "b"], val="unused")
    read = read_samples(Folders(images="images/train", masks="masks/train"), data, masks=True)
    assert [(s.image, s.mask) for s in read.samples][:2] == [
        ("images/train/b/c/photo 0.jpg", "masks/train/b/c/photo 0.bmp"),
        ("images/train/b/c/photo 2.jpg", "masks/train/b/c/photo 2.bmp"),
    ]
    for hidden in ("images/train/._x.jpg", "images/train/.thumbnails/y.jpg", "images/train/x.txt"):
        (root / hidden).parent.mkdir(exist_ok=True)
        (root / hidden).write_text("no image")
    assert list(read_samples(Folders(images="images/train"), data, masks=False).samples) == [
        s._replace(mask=None) for s in read.samples
    ]
    inside = Folders(images=".", masks="masks")  # masks are not listed as images
    with pytest.raises(UserError, match="has no mask"):
        read_samples(inside, data, masks=True)
    assert len(read_samples(inside, data, masks=False).samples) == 11


@pytest.mark.parametrize(
    "change, parts",
    [
        ({"labeled": {"images": "images/train"}}, ["images/train", "need masks"]),
        ({"labeled": {"images": "images/train", "masks": "masks"}},
         ["train: '", "has no mask ", "/masks/", "3 others"]),
        ({"labeled": {"images": "nowhere", "masks": "masks"}}, ["nowhere", "no such folder"]),
        ({"unlabeled": {"images": "masks/../more"}}, ["masks/../more", "leads out"]),
        ({"unlabeled": {"images": "images/val"}}, ["images/val", "is also in"]),
        ({"unlabeled": {"imges": "more"}}, ["unknown key 'data.unlabeled.imges'"]),
        ({"unlabeled": 3}, ["data.unlabeled", "found 3"]),
        ({"unlabeled": "."}, ["folder", "{images: FOLDER"]),
        ({"label_map": {"0,0,0": "A"}}, ["data.label_map", "'A' is not a class; expected"]),
        ({"label_map": {"0,0,0": 3}}, ["data.label_map", "'3' is not a class"]),
        ({"label_map": {"0,0": 0}}, ["data.label_map", "'0,0' is neither"]),
        ({"label_map": {"0,0,256": 0}}, ["data.label_map", "'0,0,256' is neither"]),
        ({"label_map": {-1: 0}}, ["data.label_map", "'-1' is neither"]),
        ({"label_map": {0: 0, "0": 1}}, ["mine.yaml line", "key '0' occurs twice"]),
        ({"label_map": {0: 0, "1,1,1": 1}}, ["data.label_map", "found both"]),
        ({"label_map": {0: 0, 1: 1}}, ["photo 0.bmp", "mode RGB", "one channel"]),
        ({"label_map": {"0,0,0": 0}}, ["photo 0.bmp: colour", "780 pixels", "2 more"]),
        ({"reduce_zero_label": True}, ["label_map and reduce_zero_label exclude"]),
        ({"bands": "grey"}, ["train: ", "photo 0.jpg", "has 3 bands, but data.bands is grey"]),
        ({"classes": ["a", "a"]}, ["data.classes", "'a' occurs twice"]),
        ({"label_map": {"1,1,1": 0, "other": "ignore"}}, ["no pixel is labelled", "4 masks"]),
    ],
)  # fmt: skip
def test_what_is_refused_before_training(change, parts, folders, tmp_path, training_error):
    config = folders(**change)
    err = training_error(FixMatch, ["--config", str(config), "--save-path", str(tmp_path / "run")])
    assert all(part in err for part in parts), err


def test_keys_as_lists_and_from_the_command_line(folders):
    path = folders()
    path.write_text(path.read_text().replace("0,0,0: a", "[0, 0, 0]: a"))
    assert "[0, 0, 0]: a" in path.read_text()
    expected = {"0,0,0": 0, "128,64,0": 1, "0,128,128": 2, "other": 255}
    assert load_config(path).data.label_map == expected
    config = load_config(path, ["data.label_map={[1, 2, 3]: b c}"])
    assert config.data.label_map == expected | {"1,2,3": 1}
    path.write_text(dump_config(config))
    assert load_config(path) == config


def test_masks_with_0_and_255_explain_the_label_map(toy, caplog):
    """With two classes and values 0 and 255, the second class never occurs: 255 is ignored."""
    for mask in (toy.root / "masks").iterdir():
        Image.fromarray((truth(0, size=Image.open(mask).size) == 1) * np.uint8(255)).save(mask)

    def check(*overrides):
        caplog.clear()
        config = load_config(toy.config, ["data.classes=[other, road]", *overrides])
        check_files(config.data, *read_splits(config.data, unlabeled=True))

    check()
    messages = caplog.messages
    assert len(messages) == 2 and all(
        "road" in line and "are 255: ignored" in line for line in messages
    )
    check("data.label_map={0: other, 255: road}")
    assert not caplog.messages
    with pytest.raises(UserError, match="no pixel is labelled in the 3 masks"):
        check("data.label_map={0: ignore, 255: ignore}")


def test_lines_of_lists_survive_spaces(tmp_path):
    samples = [("a.jpg", None), ("a b.jpg", None), ("a.jpg", "m/a.png"), ("b.jpg", "m m/a.png")]
    path = tmp_path / "list.txt"
    for image, mask in samples:
        path.write_text(sample_line(image, mask) + "\n")
        read = read_split_file(path, masks=mask is not None).samples
        assert [(s.image, s.mask) for s in read] == [(image, mask)]
    for name in ("a\tb.jpg", " a.jpg", "a\n.jpg", "a\udcff.jpg"):
        with pytest.raises(UserError, match="rename"):
            sample_line(name)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_images_are_read_as_viewers_show_them(suffix, tmp_path):
    upright = np.zeros((40, 20, 3), np.uint8)
    upright[:10] = 255
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.rot90(upright)).save(path, exif=exif_with_orientation(6))
    assert image_size(path) == (20, 40)
    np.testing.assert_allclose(read_bands(path, RGB)[0].astype(int), upright, atol=8)


def test_damaged_exif_is_ignored_and_a_named_pipe_refused(tmp_path):
    for name, damaged in (("a.jpg", b"II*\0" + b"\xff" * 20), ("a.png", b"not a TIFF")):
        path = tmp_path / name
        Image.new("RGB", (6, 4)).save(path, exif=b"Exif\0\0" + damaged)
        assert image_size(path) == (6, 4) and read_bands(path, RGB)[0].shape == (4, 6, 3)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UserError, match="pipe.png: not a regular file"):
        read_bands(tmp_path / "pipe.png", RGB)


def test_masks_that_ignore_exif_are_reported(toy, training_error, tmp_path):
    for i in range(3):
        path = toy.root / f"images/l{i}.jpg"
        Image.open(path).save(path, exif=exif_with_orientation(6))
    err = training_error(SupOnly, toy.argv(tmp_path / "run"))
    for part in ("labeled.txt line 1", "the mask is 52x44", "44x52", "EXIF", "and 2 others"):
        assert part in err


@pytest.mark.parametrize(("images", "showing", "expected"), [
    (10, [3, 3], ""),
    (10, None, ""),
    (1, [3, 3], "1 validation image, expected"),
    (10, [2, 3], "fewer than 3 validation images show sky (2): scores"),
    (9, [0, 1], "9 validation images, expected at least 10; fewer than 3 validation images show "
                "sky (0), tree (1): scores are uncertain"),
])  # fmt: skip
def test_what_is_too_few(images, showing, expected):
    found = too_few(images, ["sky", "tree"], showing)
    assert found.startswith(expected) and bool(found) == bool(expected)


@pytest.mark.parametrize("line, message", [
    ("images\\a.png masks\\a.png", "the path holds backslashes, expected /"),
    ("images/a.PNG masks/a.png", "found a.png there, upper and lower case differ"),
    ("images/a.jpg masks/a.png", "found a.png there. Fix: correct the suffix"),
    ("images/b.png masks/a.png", "found a link to a missing file, or a folder, of this name"),
])  # fmt: skip
def test_missing_files_of_lists_are_named_for_what_they_are(line, message, tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / folder / "a.png")
    (tmp_path / "images/b.png").symlink_to("nowhere.png")
    (tmp_path / "list.txt").write_text(line)
    samples, _ = scan_split_file(Origin(tmp_path / "list.txt", tmp_path), True, None)
    with pytest.raises(UserError, match=message):
        check_existence(Split("", samples))


def test_a_folder_is_listed_again_only_if_it_changed(tmp_path, monkeypatch):
    """A check of thousands of missing files must not list their folder for each one."""
    listings = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listings.append(path) or listdir(path))
    (tmp_path / "a.png").touch()
    for number in range(3):
        assert missing_file_hint(tmp_path / f"{number}.png") == ""
    assert len(listings) == 1
    os.utime(tmp_path, (0, 0))
    assert "found a.png there" in missing_file_hint(tmp_path / "a.jpg") and len(listings) == 2


@pytest.mark.parametrize("stored, listed", [("NFD", "NFC"), ("NFC", "NFD")])
def test_accents_of_lists_and_files_may_be_encoded_apart(stored, listed, tmp_path):
    name, path = (
        unicodedata.normalize(form, "stra\u00dfe/\u00fc.png") for form in (stored, listed)
    )
    (tmp_path / name).parent.mkdir()
    Image.new("L", (4, 4)).save(tmp_path / name)
    (tmp_path / "list.txt").write_text(f"{path} {path}\n", encoding="utf-8")
    (sample,), _ = scan_split_file(Origin(tmp_path / "list.txt", tmp_path), True, None)
    assert sample.image == sample.mask == name


def test_spaces_without_a_tab_are_explained(tmp_path):
    (tmp_path / "list.txt").write_text("a.png\nphoto 1.png\nphoto 2.png\t\n")
    samples, (fault,) = scan_split_file(Origin(tmp_path / "list.txt", tmp_path), False, None)
    assert [sample.image for sample in samples] == ["a.png", "photo 2.png"]
    text = str(fault)
    assert "line 2: 'photo 1.png'" in text and "end a line without a mask by a tab" in text


def test_long_lines_with_accents_are_faults(tmp_path):
    (tmp_path / "list.txt").write_text("\u00fc" * 200 + ".png\n", encoding="utf-8")
    samples, faults = scan_split_file(Origin(tmp_path / "list.txt", tmp_path), False, None)
    assert len(samples) + len(faults) == 1


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_lists_in_utf_16_are_named(encoding, tmp_path):
    (tmp_path / "list.txt").write_text("a.png b.png\n", encoding=encoding)
    with pytest.raises(UserError, match="UTF-16.*UTF-8"):
        scan_split_file(Origin(tmp_path / "list.txt", tmp_path), True, None)


def test_files_of_unknown_suffix_are_counted_and_named(tmp_path, caplog):
    for name in ("a.png", "b.jfif", "c.JFIF", "d.heic", "notes.txt"):
        (tmp_path / name).touch()
    with caplog.at_level("WARNING", "semi"):
        assert names_by_stem(tmp_path) == {"a": "a.png"}
    assert "2 .jfif, such as b.jfif, 1 .heic, such as d.heic; expected .bmp" in caplog.text


@pytest.mark.parametrize("setting", ["data.classes=[yes, no, b]", "data.label_map={0: 0, 1: no}",
                                     "data.classes=[a, 1, b]"])  # fmt: skip
def test_words_that_yaml_takes_for_others_need_quotes(setting, toy):
    with pytest.raises(UserError, match="put it in quotes, as YAML reads yes, no, on and off"):
        load_config(toy.config, [setting])
