"""`tools.prepare init`: from folders of images and masks to a trained epoch."""

import re
import shlex
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import evaluate
from dataset.reader import Reader
from dataset.split_files import read_split_file
from fixmatch import FixMatch
from inference.mask_encoding import MaskEncoding
from supervised import SupOnly
from tests.own_images import (
    COLOURS,
    FORMS,
    NAMES,
    TINY,
    georeference,
    save_image,
    truth,
    with_palette,
    write_images,
    write_masks,
)
from tools.check_data import __main__ as check_data
from tools.prepare import __main__ as prepare
from util.config.loading import load_config
from util.errors import UserError


def masks_of(config):
    """Return the class indices of all labelled and validation masks by the photo's number."""
    reader = Reader(config.data)
    lists = (read_split_file(path, masks=True) for path in (config.data.labeled, config.data.val))
    samples = [sample for listed in lists for sample in listed.samples]
    return {int(Path(s.image).stem[6:]): np.array(reader.mask(s)) for s in samples}


@pytest.mark.parametrize("form", FORMS)
def test_from_folders_to_a_config(form, init, run, train):
    """Read masks in every form; with one form, also train and evaluate."""
    stems = write_images(Path("images"), deep=form == "16 bits")
    write_masks(Path("masks"), stems, form)
    write_images(Path("more"), 3, deep=form == "16 bits")
    options = ["--unlabeled", "more", "--val", "0.34", "--classes"]
    classes = ",".join(NAMES)
    if form in ("rgb", "own palette"):  # the order of colours cannot be known
        code, out, err = init(*options, classes)
        assert code == 2 and "which of the colours is which class" in err
        assert "'0,0,0=a,0,128,128=b c,128,64,0=Ünten,224,224,192=ignore'" in out
        classes = "0,0,0=a,128,64,0=b c,0,128,128=Ünten,224,224,192=ignore"
    elif form == "16 bits":  # 255 is between the classes
        assert "3 names for 4 values: 0; 255; 300; 600" in init(*options, classes).mistake()
        classes = "0=a,300=b c,600=Ünten,255=ignore"
    out = init(*options, classes).output()
    assert "4 labeled, 3 unlabeled, 2 val" in out and "52x44" in out
    assert out.startswith("reading  15 images and masks\n")

    config = load_config("configs/mine.yaml")
    assert config.data.classes == NAMES and config.data.root == Path(".")
    assert config.crop_size == 33 and config.epoch_length == 100
    assert (config.data.label_map is not None) == (form in ("rgb", "own palette", "16 bits"))
    deep = form == "16 bits"
    assert config.data.bands == ("grey" if deep else "rgb")
    if deep:
        low, high = config.data.image_range
        assert 0 <= low < 30 and 3300 < high < 3520  # of 0 to 3519
    else:
        assert config.data.image_range is None
    expected = COLOURS.tolist() if form in ("rgb", "own palette", "palette") else None
    assert (config.data.palette and [list(c) for c in config.data.palette]) == expected
    found = masks_of(config)
    assert sorted(found) == list(range(6))
    for number, mask in found.items():
        np.testing.assert_array_equal(mask, truth(number))

    if form != "rgb":
        return
    code, out, err = run(check_data, "--config", "configs/mine.yaml")
    assert code == 1 and "picture (by decoded pixels) that occurs twice" in out  # copies in more/
    out = run(check_data, "--config", "configs/mine.yaml", "--set", "data.unlabeled=null").output()
    assert "validation split that is too small (1)" in out

    train(FixMatch, ["--config", "configs/mine.yaml", "--save-path", "run", "--set", *TINY])
    out = run(
        evaluate, "--config", "configs/mine.yaml", "--checkpoint", "run/best.pth", "--set", *TINY
    ).output()
    assert "b c" in out and "2 images of splits/mine/val.txt" in out


def test_init_draws_by_seed_and_never_overwrites(init):
    write_masks(Path("masks"), write_images(Path("images"), 12), "index")
    drawn, config = [], Path("configs/mine.yaml")
    for lists, seed in (("one", 1), ("two", 1), ("three", 2)):
        assert init("--lists", lists, "--seed", seed, "--val", "0.25")[0] == 0
        drawn.append(Path(lists, "val.txt").read_text())
        config.rename("mine")
    assert drawn[0] == drawn[1] != drawn[2] and drawn[0].count("\n") == 3
    err = init("--lists", "one").mistake()
    assert "one/labeled.txt: exists already" in err and not config.exists()
    config.write_text("mine")
    err = init("--lists", "other").mistake()
    assert "configs/mine.yaml: exists already" in err and "--force" in err
    assert config.read_text() == "mine" and not Path("other").exists()
    assert init("--force", "--classes", "x,y,z")[0] == 0
    config.write_text("mine, too")
    assert init("--force", "--classes", "x,y,z")[0] == 0
    for name, text in (("mine.yaml.old", "mine"), ("mine.yaml.old2", "mine, too")):
        assert Path("configs", name).read_text() == text
    assert load_config(config).data.classes == ["x", "y", "z"]


def test_most_validation_images_stay_when_labels_are_added(init):
    stems = write_images(Path("images"), 41, size=(8, 6))
    stripes = np.arange(48, dtype=np.uint8).reshape(6, 8) % 2
    drawn = []
    for count in (40, 41):
        write_masks(Path("masks"), stems[:count], (".png", lambda _: Image.fromarray(stripes)))
        assert init("--classes", "a,b", "--force", "--val", "0.25")[0] == 0
        drawn.append(set(Path("splits/mine/val.txt").read_text().splitlines()))
    assert len(drawn[0] & drawn[1]) >= 9


def test_init_with_folders_for_validation(init):
    write_masks(Path("masks"), write_images(Path("images")), "index")
    assert init("--val", "images/b")[0] == 0
    assert Path("splits/mine/val.txt").read_text().count("images/b/c/photo") == 3
    assert "b/c" not in Path("splits/mine/labeled.txt").read_text()
    Path("configs/mine.yaml").unlink()
    write_masks(Path("val masks"), write_images(Path("val images"), 2), "index", suffix="_mask")
    assert init("--lists", "lists", "--val", "val images", "val masks")[0] == 0
    assert "val images/b/c/photo 0.jpg\tval masks/b/c/photo 0_mask.png" in (
        Path("lists/val.txt").read_text()
    )
    assert Path("lists/labeled.txt").read_text().count("\n") == 6


@pytest.mark.parametrize(("options", "counts"), [
    ([], (3, 2, 1)), (["--val", "0.4"], (3, 2, 1)), (["--val", "images/train/a"], (4, 1, 1)),
])  # fmt: skip
def test_folders_of_sets_are_kept_apart(options, counts, init):
    names = ["train/a/0", "train/1", "train/2", "val/3", "Validation/4", "test/5"]
    if options[1:] == ["0.4"]:
        names[:3] = "0", "1", "train/2"
    for old, new in zip(write_images(Path("more")), names, strict=True):
        save_image(Image.open(f"more/{old}.jpg"), f"images/{new}.jpg")
    write_masks(Path("masks"), names, "index")
    code, out, err = init(*options)
    labelled, val, test = counts
    assert code == 0 and f"{labelled} labeled, 0 unlabeled, {val} val, {test} test" in out, err
    data = load_config("configs/mine.yaml").data
    (sample,) = read_split_file(data.test, masks=True).samples
    assert sample.image.endswith("test/5.jpg")
    held = {Path(s.image).stem for s in read_split_file(data.val, masks=True).samples}
    if not options:
        assert held == {"3", "4"}


@pytest.mark.parametrize(("options", "counts"), [
    ([], "3 labeled, 1 unlabeled, 1 val, 1 test"),
    (["--unlabeled", "images/test"], "3 labeled, 2 unlabeled, 1 val, 1 test"),
    (["--val", "images/train/a"], "3 labeled, 2 unlabeled, 1 val, 1 test"),
])  # fmt: skip
def test_images_to_validate_or_test_on_are_not_unlabelled(options, counts, init):
    names = ["train/a/0", "train/1", "train/2", "val/3", "test/4"]
    bare = ["train/5", "val/6", "test/7"]
    for number, new in enumerate(names + bare):
        save_image(Image.new("RGB", truth(number).shape[::-1]), f"images/{new}.jpg")
    write_masks(Path("masks"), names, "index")
    out = init(*options).output()
    assert counts in out
    listed = Path("splits/mine/unlabeled.txt").read_text()
    assert "train/5" in listed and ("test/7" in listed) == ("images/test" in options)
    left_out = 2 if not options else 1
    assert f"{left_out} without a mask in folders of validation or test images" in out


def test_the_image_pattern_holds_for_unlabelled_images(init):
    write_masks(Path("images"), write_images(Path("images")), "index", suffix="_gt")
    for name in ("8_depth.png", "8_rgb.jpg", "9_rgb.jpg"):
        save_image(Image.new("RGB", (50, 40)), f"more/{name}")
    for path in [*Path("images").rglob("*.jpg")]:
        path.rename(path.with_name(f"{path.stem}_rgb.jpg"))
    patterns = ["--masks", "images", "--image-pattern", "*_rgb.jpg", "--mask-pattern", "*_gt.png"]
    assert "2 unlabeled" in init(*patterns, "--unlabeled", "more").output()


def test_two_endings_of_masks_are_refused(init):
    stems = write_images(Path("images"))
    for suffix in ("_boundary", "_seg"):
        write_masks(Path("masks"), stems, "index", suffix=suffix)
    assert "Fix: --mask-pattern '*_boundary.png' or '*_seg.png'" in init().mistake()
    init("--mask-pattern", "*_seg.png").output()


def test_init_without_all_masks_and_with_suffixes(init):
    stems = write_images(Path("images"))
    write_masks(Path("masks"), [*stems[:4], "spare"], "index", suffix="_gt")
    out = init().output()
    assert "names of masks end in _gt" in out
    assert "2 without a mask are unlabelled" in out and "1 masks without an image" in out
    assert "3 labeled, 2 unlabeled, 1 val" in out and "fixmatch.py" in out


@pytest.mark.parametrize("values, options, label_map", [
    ([0, 255, 0, 0], [], {"0": 0, "255": 1}),
    ([7, 9, 24, 255], [], {"7": 0, "9": 1, "24": 2, "255": 255}),
    ([7, 9, 24, 255], ["--ignore", "9"], {"7": 0, "9": 255, "24": 1, "255": 2}),
])  # fmt: skip
def test_every_value_is_a_class(values, options, label_map, init):
    """Keep gaps between values; 255 is ignored beside close values alone."""
    values = np.array(values, np.uint8)
    form = (".png", lambda mask: Image.fromarray(values[np.minimum(mask, 3)]))
    write_masks(Path("masks"), write_images(Path("images")), form)
    init(*options).output()
    config = load_config("configs/mine.yaml")
    assert config.data.label_map == label_map
    kept = [key for key, label in label_map.items() if label != 255]
    assert config.data.classes == [f"class_{key}" for key in kept]
    for number, mask in masks_of(config).items():
        expected = [label_map[str(value)] for value in values]
        np.testing.assert_array_equal(mask, np.array(expected)[np.minimum(truth(number), 3)])


def test_255_may_be_the_object_of_a_trimap(init):
    """Ask about 0, 128, 255 with two names: 128 may be unsure pixels."""
    values = np.array([0, 128, 255, 0], np.uint8)
    form = (".png", lambda mask: Image.fromarray(values[np.minimum(mask, 3)]))
    write_masks(Path("masks"), write_images(Path("images")), form)
    assert "2 names for 3 values" in init("--classes", "background,object").mistake()


def test_255_that_is_ignored_is_no_class_stored_in_two_ways(init):
    stems = write_images(Path("images"))
    write_masks(Path("masks"), stems, (".png", index))
    Image.fromarray((truth(0) == 1) * np.uint8(255)).save(Path("masks") / f"{stems[0]}.png")
    assert "1 and 255 are in no mask together" in init().mistake()
    assert "255    (ignored)" in init("--ignore", "255").output()


def test_a_thin_class_beside_ignored_pixels_is_a_class(init):
    """Keep class 1 of lines one pixel wide, such as cracks, beside 255."""

    def thin(mask):
        values = np.zeros(mask.shape, np.uint8)
        values[:3], values[20, :20] = 255, 1
        return Image.fromarray(values)

    write_masks(Path("masks"), write_images(Path("images")), (".png", thin))
    out = init("--classes", "background,crack").output()
    assert "255    (ignored)" in out and load_config("configs/mine.yaml").data.label_map is None


def test_the_masks_are_no_unlabelled_images(init):
    """Leave masks out of `--unlabeled` where its folder contains theirs."""
    stems = write_images(Path("images"))
    write_masks(Path("masks"), [*stems, "spare"], "index")
    for name in "xy":
        save_image(Image.new("RGB", (50, 40)), f"{name}.jpg")
    assert " 2 unlabeled" in init("--unlabeled", ".").output()


def test_grey_values_are_no_palette(init):
    """Keep grey masks from making all pictures of classes black."""
    form = (".png", lambda mask: Image.fromarray(np.minimum(mask, 3)).convert("P"))
    write_masks(Path("masks"), write_images(Path("images")), form)
    init().output()
    assert load_config("configs/mine.yaml").data.palette is None


def test_a_class_of_validation_masks_only_is_named(init):
    stems = write_images(Path("images"))
    write_masks(Path("masks"), stems, "index")
    assert init()[0] == 0
    (val,) = [
        Path(s.mask)
        for s in read_split_file(load_config("configs/mine.yaml").data.val, True).samples
    ][:1]
    mask = np.asarray(Image.open(val)).copy()
    mask[:9, :9] = 4
    Image.fromarray(mask).save(val)
    assert "warning  in no training mask: class_4; " in init("--force").output()


def test_the_proposed_command_keeps_force(init, run):
    write_masks(Path("masks"), write_images(Path("images")), "index")
    assert init()[0] == 0
    code, out, _ = init("--force", "--classes", "a,b")
    command = shlex.split(re.search("command  (.*)", out)[1])
    assert code == 2 and command.count("--force") == 1
    assert "\ncheck    " in run(prepare, *command[3:]).output()


FIRST = Path("masks/b/c/photo 0.png")
SPOILT = {
    "size": lambda: Image.new("L", (9, 9)).save(FIRST),
    "jpeg": lambda: (Image.new("L", (52, 44)).save(FIRST.with_suffix(".jpg")), FIRST.unlink()),
    "photograph": lambda: save_image(
        np.random.default_rng(0).integers(0, 255, (44, 52, 3), np.uint8), FIRST
    ),
    "two of a name": lambda: Image.new("L", (52, 44)).save(FIRST.with_suffix(".bmp")),
    "damaged": lambda: FIRST.write_bytes(FIRST.read_bytes()[:60]),
    "grid": lambda: georeference(Path("images/b/c/photo 0.jpg"), FIRST, 2),
    "one pair": lambda: [path.unlink() for path in Path("images").rglob("photo [1-5].jpg")],
    "": lambda: None,
}
"""Changes of the data that `init` must refuse."""


@pytest.mark.parametrize(
    "what, options, parts",
    [
        ("size", [], ["photo 0.png: the mask is 9x9", "52x44", "Fix: repair or remove"]),
        ("grid", [], ["masks/b/c/photo 0.tif: 2.0 pixels off ", "expected the same grid"]),
        ("jpeg", [], ["photo 0.jpg: lossy compression (JPEG", "PNG"]),
        ("photograph", [], ["photo 0.png", "values or colours", "expected a mask"]),
        ("two of a name", [], ["photo 0.png", "photo 0.bmp", "one file per name"]),
        ("damaged", [], ["photo 0.png", "not a readable image"]),
        ("", ["--classes", "a,b"], ["--classes: 2 names for 3 values: 0; 1; 2", "command above"]),
        ("", ["--classes", "a,a,b"], ["--classes a,a,b", "distinct"]),
        ("", ["--classes", "a,b,nearest"], ["--classes a,b,nearest", "distinct"]),
        ("", ["--classes", "0=a,1=b,2=nearest"], ["expected VALUE=NAME", "other=nearest"]),
        ("", ["--classes", "0=a,1=b,1=c"], ["1 is both b and c; expected one"]),
        ("", ["--classes", "0=a,2=c", "--ignore", "02"], ["2 is both ignore and c"]),
        ("", ["--ignore", "9"], ["--ignore 9", "not in the masks"]),
        ("", ["--ignore", "x"], ["--ignore", "'x'"]),
        (
            "",
            ["--ignore", "0", "1", "2"],
            ["makes 1 class; expected 2 to 254. Fix: name classes that"],
        ),
        ("", ["--masks", "images"], ["images", "the folder of the images"]),
        ("", ["--masks", "none"], ["none", "no such folder"]),
        ("", ["--unlabeled", "masks"], ["--unlabeled masks: is the folder of the masks"]),
        ("", ["--val", "1"], ["--val 1", "share between 0 and 1"]),
        (
            "one pair",
            [],
            ["--masks masks: 1 image with a usable mask", "at least 2; found 5 masks"],
        ),
        ("", ["--val", "images"], ["--val images", "takes all"]),
        ("", ["--val", "masks"], ["masks", "holds no labelled image"]),
        ("", ["--val", "nowhere"], ["nowhere", "no such folder"]),
    ],
)
def test_refused_data_and_options(what, options, parts, init):
    write_masks(Path("masks"), write_images(Path("images")), "index")
    SPOILT[what]()
    err = init(*options).mistake()
    assert all(part in err for part in parts), err
    assert not Path("configs").exists() and not Path("splits").exists()


DISK = np.hypot(*np.ogrid[-22:22, -26:26]) < 15


def smoothed(_):
    sharp = Image.fromarray(DISK * np.uint8(255))
    return sharp.resize((104, 88), Image.Resampling.BICUBIC).resize((52, 44))


def test_smoothed_masks_do_not_make_dozens_of_classes(init):
    write_masks(Path("masks"), write_images(Path("images")), (".png", smoothed))
    code, out, err = init()
    assert code == 2 and "these values do not look like classes:" in err
    names = [f"photo {i}.png" for i in range(6)]
    named = [line.partition("  in ")[2].split(", ") for line in out.splitlines() if "  in " in line]
    assert named and all(sorted(files) == names for files in named)
    assert "--classes 0=class_0,255=class_255,other=nearest" in out
    assert not Path("configs").exists()
    nearest = ["--classes", "0=rest,255=road,other=nearest"]
    ignored = ["--classes", "rest,road", "--ignore", "other"]
    for options, line in ((nearest, "hardly a class: as the nearest"), (ignored, "other: ignore")):
        assert init(*options, "--force")[0] == 0
        assert line in Path("configs/mine.yaml").read_text()
        config = load_config("configs/mine.yaml")
        assert config.data.classes == ["rest", "road"]
        for mask in masks_of(config).values():
            assert (255 in mask) == (options is ignored)
            assert ((mask != DISK) & (mask != 255)).mean() < 0.01


def test_strays_in_a_few_masks_are_no_classes(init):
    write_masks(Path("masks"), write_images(Path("images"), 60), "index")
    path = Path("masks/b/c/photo 4.png")
    mask = np.array(Image.open(path))
    mask[20, :4] = 7, 9, 100, 101
    Image.fromarray(mask).save(path)
    code, out, err = init("--classes", "a,b,c")
    assert code == 2 and "4 values: 7; 9; 100; 101" in err and "photo 4.png" in out
    err = init("--classes", "0=a,1=b,2=c,7=d,255=ignore").mistake()
    assert "has no class for 3 values: 9; 100; 101" in err
    assert init("--classes", "0=a,1=b,2=c,7=a,255=ignore,other=ignore")[0] == 0
    data = load_config("configs/mine.yaml").data
    assert data.classes == ["a", "b", "c"]
    assert data.label_map == {"0": 0, "1": 1, "2": 2, "7": 0, "255": 255, "other": 255}


def test_a_frequent_255_is_not_ignored_unasked(init):
    def form(mask):
        return Image.fromarray(np.where(mask == 2, 255, np.where(mask == 255, 0, mask)))

    write_masks(Path("masks"), write_images(Path("images")), (".png", form))
    code, out, err = init()
    assert code == 2 and "33% of the pixels are 255; is this value ignored, or a class?" in err
    assert "0=class_0,1=class_1,255=ignore" in out
    assert init("--classes", "0=a,1=b,255=c")[0] == 0
    assert load_config("configs/mine.yaml").data.label_map == {"0": 0, "1": 1, "255": 2}


def test_the_label_map_names_classes(init):
    names = ["no", "2: # 'x'", 60 * "Ünten "]
    form = (".png", lambda mask: Image.fromarray(7 * np.minimum(mask, 2)))
    write_masks(Path("masks"), write_images(Path("images")), form)
    init("--classes", ",".join(f"{7 * n}={name}" for n, name in enumerate(names))).output()
    text, data = Path("configs/mine.yaml").read_text(), load_config("configs/mine.yaml").data
    assert "0: 'no'  # 3" in text and data.classes == [name.strip() for name in names]
    assert data.label_map == {"0": 0, "7": 1, "14": 2}


@pytest.mark.parametrize("numbering", ["anew", "unique", "colours"])
def test_masks_of_objects_are_refused(numbering, init):
    stems = write_images(Path("images"), 8)
    for number, stem in enumerate(stems):
        mask = np.zeros((44, 52), np.uint8)
        for place in range(4 + number):
            first = 1 if numbering == "anew" else 1 + 12 * number
            mask[4 * (place % 10) :][:3, 10 * (place // 10) :][:, :9] = first + place
        table = np.random.default_rng(0).permutation(256).astype(np.uint8)
        picture = mask if numbering != "colours" else np.stack([mask, table[mask], mask], -1)
        save_image(picture, f"masks/{stem}.png")
    assert "one value per object" in init().mistake()
    if numbering != "colours":
        assert init("--classes", "0=background,other=object")[0] == 0
        assert load_config("configs/mine.yaml").data.label_map == {"0": 0, "other": 1}


def test_patterns_and_one_folder_for_all(init):
    write_masks(Path("images"), write_images(Path("images")), "rgb", suffix="_gt")
    patterns = ["--masks", "images", "--image-pattern", "*.jpg", "--mask-pattern", "*_gt.bmp"]
    names = ["--classes", "0,0,0=a,128,64,0=b,0,128,128=b,224,224,192=ignore"]
    assert "6 with masks" in init(*patterns, *names).output()
    assert load_config("configs/mine.yaml").data.classes == ["a", "b"]
    lines = "".join(path.read_text() for path in Path("splits/mine").iterdir())
    assert "b/c/photo 0.jpg\tb/c/photo 0_gt.bmp" in lines
    for pattern in ("*.gif", "image", "*_*.jpg"):
        assert pattern in init("--force", *patterns, "--image-pattern", pattern).mistake()


def test_patterns_that_both_match_a_file(init):
    """A file of both patterns belongs to the narrower one."""
    write_masks(Path("images"), write_images(Path("images"), deep=True), "index", suffix="_m")
    in_one = ["--masks", "images", "--image-pattern"]
    assert "6 with masks" in init(*in_one, "*.png", "--mask-pattern", "*_m.png").output()
    err = init("--force", *in_one, "*_m.png", "--mask-pattern", "*m.png").mistake()
    assert "separate them with --image-pattern" in err


def test_names_from_macos(init):
    write_images(Path("images"), 4)
    write_masks(Path("masks"), write_images(Path("more"), 4), "index")
    for folder, form in (("images", "NFD"), ("masks", "NFC")):
        for i, path in enumerate(sorted(Path(folder).rglob("*.*"))):
            path.rename(Path(folder, unicodedata.normalize(form, f"Größe {i}") + path.suffix))
    assert "4 with masks" in init("--val", "0.5").output()


def test_all_unreadable_files_are_named(init, run):
    stems = write_images(Path("images"))
    write_masks(Path("masks"), stems, "index")
    (extra,) = write_images(Path("more"), 1)
    bad = [f"masks/{stems[0]}.png", f"masks/{stems[1]}.png", f"images/{stems[2]}.jpg",
           f"more/{extra}.jpg"]  # fmt: skip
    for file in bad:
        Path(file).write_bytes(b"no image")
    code, out, err = init("--unlabeled", "more")
    assert code == 2 and "4 files cannot be used" in err
    assert all(f"{file}: not a readable image" in out for file in bad), out
    Image.new("L", (3, 4)).save(Path("masks") / f"{stems[3]}.png")
    command = shlex.split(re.search("command  (.*)", out)[1])
    out = run(prepare, *command[3:]).output()
    assert all(f"{file}: not a readable image" in out for file in bad), out
    assert "the mask is 3x4" in out and "skipped  5 of 7 images" in out
    assert sum(len(Path(f"splits/mine/{kind}.txt").read_text().splitlines())
               for kind in ("labeled", "val")) == 2  # fmt: skip
    for stem in stems:
        Path(f"images/{stem}.jpg").write_bytes(b"no image")
    code, out, err = init("--force")
    assert code == 2 and "Fix: repair or remove bad files\n" in err and "command" not in out
    err = init("--skip-bad", "--force").mistake()
    assert "--masks masks: 0 images with a usable mask" in err and "--val" not in err
    write_images(Path("images"))
    write_masks(Path("masks"), stems, "index")
    write_masks(Path("more masks"), [extra], "index")  # the image of the mask is unreadable
    err = init("--skip-bad", "--force", "--val", "more", "more masks").mistake()
    assert "--val more more masks: none of these images can be used" in err


def test_skipped_and_validation_images_are_not_counted_as_unlabelled(init):
    stems = write_images(Path("images"), 10)
    write_masks(Path("masks"), stems[:4], "index")
    write_masks(Path("val masks"), stems[6::2], "index")
    Path(f"images/{stems[5]}.jpg").write_bytes(b"no image")
    for stem in stems[6::2]:
        path = Path(f"images/held/{stem}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        Path(f"images/{stem}.jpg").rename(path)
    out = init("--skip-bad", "--val", "images/held", "val masks").output()
    assert " 3 without a mask are unlabelled\n" in out and "are left out" not in out
    assert "4 labeled, 3 unlabeled, 2 val" in out


def test_large_files_need_an_option(init, run):
    """Apply the size limit to images and masks, in `init` and in every reader of the config."""
    for i in range(2):
        save_image(Image.new("RGB", (1300, 1000)), f"images/{i}.png")
        save_image(np.eye(1000, 1300, dtype=np.uint8), f"masks/{i}.png")
    code, out, err = init("--max-megapixels", 1)
    assert code == 2 and "4 files cannot be used" in err
    for kind in ("images", "masks"):
        assert f"{kind}/0.png: 1300x1000 pixels, expected at most 1 million. Fix: raise" in out
    assert "(prepare init: --max-megapixels)" in out
    assert init("--max-megapixels", 2)[0] == 0
    config = load_config("configs/mine.yaml")
    assert config.data.max_megapixels == 2
    data = config.data.model_copy(update={"max_megapixels": 1})
    sample = read_split_file(config.data.val, masks=True).samples[0]
    with pytest.raises(UserError, match="masks/.*png: 1300x1000 pixels.*data.max_megapixels"):
        Reader(data).mask(sample)
    more = ["--set", "data.max_megapixels=1"]
    code, out, _ = run(check_data, "--config", "configs/mine.yaml", *more)
    assert code == 1
    assert all(f"{kind}/1.png: 1300x1000 pixels" in out for kind in ("images", "masks"))


@pytest.mark.parametrize("suffix", [".h5", ".npy", ".nii", ".dcm"])
def test_a_folder_without_images_is_no_matter_of_masks(suffix, run, tmp_path):
    save_image(Image.new("RGB", (9, 9)), tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / f"a{suffix}")
    err = run(prepare, "init", "--images", tmp_path, "--out", tmp_path / "mine.yaml").err
    error = err.splitlines()[-1]
    assert error.startswith("error: ") and "holds no images" in error and "masks" not in error
    assert error.endswith(". HDF5 is read for ACDC only: python -m tools.prepare acdc --source "
                          "FOLDER") == (suffix == ".h5")  # fmt: skip


@pytest.mark.parametrize(("images", "val"), [(2, 1), (24, 8), (40, 10), (120, 12)])
def test_few_labels_leave_more_than_one_image_to_validate_on(images, val, init):
    stems = write_images(Path("images"), images, size=(8, 6))
    stripes = np.arange(48, dtype=np.uint8).reshape(6, 8) % 2
    write_masks(Path("masks"), stems, (".png", lambda _: Image.fromarray(stripes)))
    out = init("--classes", "a,b").output()
    assert f"{images - val} labeled, 0 unlabeled, {val} val" in out
    assert ("warning  " in out) == (val < 10)


SLICES = [f"patient{p:03d}_frame01_slice_{s}" for p in range(4) for s in range(5)]


@pytest.mark.parametrize(("names", "options", "note"), [
    (SLICES, [], "20 of 20 names form 4 groups, such as patient00"),
    ([*SLICES, *"abcdefghij"], ["--val", "0.3"], "20 of 30 names form 4 groups"),
    ([f"dog {v}/{i:05d}" for v in "ab" for i in range(9)], [], "2 groups, such as dog "),
    ([*SLICES[:5], *"abcdefghij"], [], ""),  # most names have no number
    (SLICES[::2] + ["val/9", "val/8"], [], ""),
    (SLICES, ["--val", "images"], ""),
    ([f"img_{i:03d}" for i in range(40)], [], ""),
    ([f"2024_{'abcdefghijkl'[i]}" for i in range(12)], [], ""),
])  # fmt: skip
def test_a_note_names_groups_in_both_splits(names, options, note, init):
    for name in names:
        save_image(np.full((9, 9, 3), len(name), np.uint8), f"images/{name}.png")
        save_image(np.eye(9, dtype=np.uint8), f"masks/{name}.png")
    if options[1:] == ["images"]:  # whole patients
        options = ["--val", "images/held"]
        for folder in ("images", "masks"):
            Path(folder, "held").mkdir()
            for file in [*Path(folder).glob("patient003*")]:
                file.rename(Path(folder, "held", file.name))
    out = init("--classes", "a,b", *options).output()
    assert ("\nnote     " in out) == bool(note) and note in out, out
    if note and options == []:
        assert re.search(r"such as \S.*\*; if a group is a patient or video, keep each in", out)


def test_classes_in_few_validation_images_are_named(init):
    stems = write_images(Path("images"), 40, size=(8, 6))
    write_masks(Path("masks"), stems, (".png", lambda m: Image.fromarray(m[:6, :8] % 2)))
    mask = np.array(Image.open(f"masks/{stems[0]}.png"))
    mask[3:6, 3:6] = 2
    Image.fromarray(mask).save(f"masks/{stems[0]}.png")
    out = init("--classes", "a,b,c").output()
    assert "warning  fewer than 3 validation images show c (0)" in out
    assert " --config configs/mine.yaml --folds 5 --out splits/mine_folds\n" in out


def test_transparent_pixels_are_asked_about(init):
    """Ask even if their colour is a class, or if other=nearest would include them."""
    stems = write_images(Path("images"))

    def clear(mask):
        alpha = np.where(mask == 2, 0, 255).astype(np.uint8)
        return Image.fromarray(np.dstack([COLOURS[mask % 255], alpha]))

    write_masks(Path("masks"), stems, (".png", clear))
    code, out, err = init()
    assert code == 2 and "transparent; are they ignored, or a class?" in err
    classes = "0,0,0=class_0,128,64,0=class_1"
    assert f"--classes {classes},transparent=ignore" in out
    err = init("--classes", f"{classes},other=nearest").mistake()
    assert "has no class for transparent pixels" in err
    assert "transparent  water" in init("--classes", f"{classes},transparent=water").output()
    for number, mask in masks_of(load_config("configs/mine.yaml")).items():
        np.testing.assert_array_equal(mask, truth(number) % 255)


def bits(count):
    """Return a function that stores classes 0 and 1 as black and white in 1, 2 or 8 bits."""
    if count == 8:
        return lambda mask: Image.fromarray((mask == 1) * np.uint8(255))
    if count == 1:
        return lambda mask: Image.fromarray(mask == 1)
    return lambda mask: with_palette((mask == 1).astype(np.uint8), np.array([[0] * 3, [255] * 3]))


def blank_palette(mask):
    """Return a palette image with values 0 and 1 whose palette shows both in black."""
    image = Image.fromarray((mask == 1).astype(np.uint8), mode="P")
    image.putpalette([0, 0, 0])
    return image


def index(mask):
    return Image.fromarray((mask == 1).astype(np.uint8))


@pytest.mark.parametrize(
    "one, other, keys",
    [
        (bits(1), bits(8), ["0,0,0", "255,255,255"]),
        (bits("palette"), bits(8), ["0,0,0", "255,255,255"]),
        (bits(1), lambda mask: Image.fromarray((mask == 1) * np.uint16(65535)),
         ["0,0,0", "255,255,255"]),
        (bits(1), index, ["0", "1"]),
        (bits("palette"), index, ["0", "1"]),
        (bits(1), bits("palette"), ["0", "1"]),
        (blank_palette, blank_palette, ["0", "1"]),
    ],
)  # fmt: skip
def test_masks_of_two_kinds_mean_the_same(one, other, keys, init):
    stems = write_images(Path("images"))
    write_masks(Path("masks"), stems, (".png", one))
    for number, stem in enumerate(stems):
        picture = one if number % 2 == 0 else other
        picture(truth(number)).save(Path("masks") / f"{stem}.png")
    out = init().output()
    assert all(f"         {key} " in out for key in keys) and out.count("class_") >= 2
    for number, mask in masks_of(load_config("configs/mine.yaml")).items():
        np.testing.assert_array_equal(mask, truth(number) == 1)


@pytest.mark.parametrize("one", [bits(1), index])
def test_masks_that_may_agree_in_two_ways_are_asked_about(one, init, run):
    """Ask about 1-bit masks next to values 0, 1, 255, and about 0, 1 next to 0, 255."""
    stems = write_images(Path("images"))
    write_masks(Path("masks"), stems, (".png", one))
    for number, stem in enumerate(stems[::2]):
        mask = np.where(truth(number) == 1, 255, truth(number) == 2 if one is not index else 0)
        Image.fromarray(mask.astype(np.uint8)).save(Path("masks") / f"{stem}.png")
    err = init().mistake()
    assert "what is one class in all of them" in err or "stored in two ways" in err
    init("--classes", "0=background,1=object,255=object").output()


def test_a_config_by_hand_does_not_hide_that_masks_disagree(init, run, training_error):
    stems = write_images(Path("images"))
    write_masks(Path("masks"), stems, (".png", bits(8)))
    bits(1)(truth(0)).save(Path("masks") / f"{stems[0]}.png")
    init()
    text = Path("configs/mine.yaml").read_text().replace("label_map", "label_map: null  # ")
    lines = [line for line in text.splitlines() if '"0,0,0"' not in line and "255,2" not in line]
    Path("configs/mine.yaml").write_text("\n".join(lines))
    code, out, err = run(check_data, "--config", "configs/mine.yaml")
    assert code == 1 and "masks stored in several ways" in out and "(mode 1: 0, 1)" in out, err
    argv = ["--config", "configs/mine.yaml", "--save-path", "run", "--set", *TINY]
    assert "one value means different colours" in training_error(SupOnly, argv)
    same = "data.label_map={0: 0, 1: 1, 255: 1}"  # white has one meaning
    out = run(check_data, "--config", "configs/mine.yaml", "--set", same).output()
    assert "stored in several ways" not in out


def test_palettes_that_number_colours_anew_are_refused(init, run, training_error):
    """Also in a config by hand; a palette that just lacks its colours agrees with all others."""
    stems = write_images(Path("images"))
    colours = np.array([[0, 0, 0], [200, 0, 0], [0, 200, 0]])
    write_masks(Path("masks"), stems, (".png", lambda m: with_palette(m % 255, colours)))
    assert init("--classes", "0=a,1=b,2=c")[0] == 0
    argv = ["--config", "configs/mine.yaml"]
    with_palette(truth(0) % 255, np.zeros((3, 3))).save(Path("masks", f"{stems[0]}.png"))
    own = load_config("configs/mine.yaml", ["data.palette=null"]).data
    MaskEncoding(own).mask(truth(1) % 255).save(Path("masks", f"{stems[1]}.png"))
    output = run(check_data, *argv, "--set", "data.palette=null")[1]
    assert "stored in several ways" not in output, output
    for number, stem in enumerate(stems[:3]):
        mask = np.array([0, 2, 1], np.uint8)[truth(number) % 255]
        with_palette(mask, colours[[0, 2, 1]]).save(Path("masks", f"{stem}.png"))
    code, out, err = run(check_data, *argv)
    assert code == 1 and "the palette gives value 1 the colour" in out, err
    output = training_error(SupOnly, [*argv, "--save-path", "run", "--set", *TINY])
    assert "the palette gives value 1 the colour" in output


def test_cut_outs_without_colours_of_classes(init):
    """Transparent pixels and all others as the two classes."""

    def cut(mask):
        alpha = np.where(mask == 1, 255, 0).astype(np.uint8)
        return Image.fromarray(np.dstack([COLOURS[mask % 255], alpha]))

    write_masks(Path("masks"), write_images(Path("images")), (".png", cut))
    init("--classes", "transparent=background,other=object").output()
    for number, mask in masks_of(load_config("configs/mine.yaml")).items():
        np.testing.assert_array_equal(mask, truth(number) == 1)
