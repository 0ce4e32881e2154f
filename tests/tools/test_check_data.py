"""Inspection of a dataset: each kind of problem is planted once and must be found."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from dataset import validation
from tests.bands import png
from tests.conftest import write_sample
from tests.own_images import exif_with_orientation, georeference
from tools.check_data import __main__ as check_data
from tools.check_data.problems import ERRORS, WARNINGS


@pytest.fixture(autouse=True)
def three_are_enough(monkeypatch):
    """Lower the required number of validation images: the toy has three."""
    monkeypatch.setattr(validation, "MIN_IMAGES", 2)
    monkeypatch.setattr(validation, "MIN_MASKS_PER_CLASS", 0)


@pytest.fixture
def inspect(toy, tmp_path, run):
    """Run the command on the toy; return exit code, terminal output and JSON."""

    def command(*more):
        report = tmp_path / "report.json"
        code, out, err = run(check_data, "--config", toy.config, "--json", report, *more)
        return code, out + err, json.loads(report.read_text()) if report.exists() else {}

    return command


def edit_mask(toy, name, *values):
    """Put values into the last pixels of a mask."""
    path = toy.root / f"masks/{name}.png"
    mask = np.array(Image.open(path))
    mask.ravel()[-len(values) :] = values
    Image.fromarray(mask).save(path)


def copy_image(toy, source, target):
    shutil.copy(toy.root / f"images/{source}.jpg", toy.root / f"images/{target}.jpg")


def fill_mask(toy, name, value):
    path = toy.root / f"masks/{name}.png"
    Image.new("L", Image.open(path).size, value).save(path)


def fill_masks(toy, kind, value):
    for i in range(3):
        fill_mask(toy, f"{kind}{i}", value)


def store_black_and_white(toy, kind):
    """Store masks of classes 0 and 1 in 1 bit, or in 8 bits as 0 and 255; add class 2 to one."""
    for i in range(3):
        path = toy.root / f"masks/{kind}{i}.png"
        mask = Image.fromarray(np.array(Image.open(path)) == 1)
        (mask.convert("L") if i else mask).save(path)
    edit_mask(toy, f"{kind}2", 2)


def replace_mask(toy, name, mode, size):
    Image.new(mode, size).save(toy.root / f"masks/{name}.png")


def store_turned(toy, name, orientation, *, mask_too):
    """Store an image rotated, with the EXIF orientation that undoes it; rotate the mask or not."""
    back = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[orientation]
    path = toy.root / f"images/{name}.jpg"
    Image.open(path).transpose(back).save(path, exif=exif_with_orientation(orientation))
    if mask_too:
        mask = toy.root / f"masks/{name}.png"
        Image.open(mask).transpose(back).save(mask)


def move_mask(toy, shift):
    """Store an image and its mask as GeoTIFFs whose grids are `shift` pixels apart."""
    georeference(toy.root / "images/l1.jpg", toy.root / "masks/l1.png", shift)
    toy.write_list("labeled", [LINES[0], "images/l1.tif masks/l1.tif", LINES[2]])


def store_deep(toy):
    """Store all images in 16 bits, one value for a grey level."""
    for path in (toy.root / "images").iterdir():
        path.with_suffix(".png").write_bytes(png(np.array(Image.open(path)).astype(np.uint16)))
        path.unlink()
    for kind in ("labeled", "unlabeled", "val"):
        toy.path(kind).write_text(toy.path(kind).read_text().replace(".jpg", ".png"))


def spoil(toy, name):
    (toy.root / f"images/{name}.jpg").write_bytes(b"no image")


LINES = ["images/l0.jpg masks/l0.png", "images/l1.jpg masks/l1.png", "images/l2.jpg masks/l2.png"]

# Planted fault; kind, list and line of the problem; parts of its message.
PLANTED = {
    "no mask": (lambda t: t.write_list("labeled", [*LINES, "images/l3.jpg"]),
                ("line", "labeled", 4), ["labeled.txt line 4", "l3.jpg", "no mask"]),
    "line twice": (lambda t: t.write_list("labeled", [*LINES, LINES[1]]),
                   ("line", "labeled", 4), ["line 4", "is in line 2"]),
    "outside": (lambda t: t.write_list("val", ["../x.jpg m.png", "images/v0.jpg masks/v0.png"]),
                ("line", "val", 1), ["val.txt line 1", "../x.jpg", "leads out"]),
    "missing": (lambda t: (t.root / "images/u1.jpg").unlink(),
                ("unreadable", "unlabeled", 2), ["unlabeled.txt line 2", "u1.jpg", "no such file"]),
    "missing mask": (lambda t: (t.root / "masks/l2.png").unlink(),
                     ("unreadable", "labeled", 3), ["line 3", "l2.png", "no such file"]),
    "unreadable": (lambda t: spoil(t, "v1"),
                   ("unreadable", "val", 2), ["val.txt line 2", "v1.jpg", "not a readable"]),
    "size": (lambda t: replace_mask(t, "l1", "L", (9, 8)),
             ("size", "labeled", 2), ["line 2", "l1.png", "9x8", "52x44"]),
    "grid": (lambda t: move_mask(t, 2),
             ("grid", "labeled", 2), ["line 2", "masks/l1.tif: 2.0 pixels off ", "l1.tif"]),
    "turned": (lambda t: store_turned(t, "l1", 6, mask_too=True),
               ("turned", "labeled", 2), ["line 2", "l1.png", "44x52", "52x44", "EXIF"]),
    "half turn": (lambda t: store_turned(t, "l1", 3, mask_too=True),
                  ("maybe turned", "labeled", 2), ["line 2", "l1.png", "without its EXIF"]),
    "value": (lambda t: edit_mask(t, "v2", 7, 9, 9),
              ("mask", "val", 3), ["line 3", "v2.png", "mask value 9 (2 pixels)", "1 more"]),
    "mode": (lambda t: replace_mask(t, "l0", "RGB", (52, 44)),
             ("mask", "labeled", 1), ["line 1", "l0.png", "mode RGB"]),
    "kinds": (lambda t: store_black_and_white(t, "l"),
              ("kinds", "labeled", 0), ["l0.png (mode 1: 0, 1)", "mode L: 0, 255", "label_map"]),
    "nothing labelled": (lambda t: fill_masks(t, "l", 255),
                         ("nothing labelled", "labeled", 0), ["labeled.txt"]),
    "two lists": (lambda t: t.write_list("unlabeled", ["images/u0.jpg", "images/l2.jpg"]),
                  ("overlap", "unlabeled", 2), ["unlabeled.txt line 2", "labeled.txt line 3"]),
    "leak": (lambda t: copy_image(t, "v0", "u2"),
             ("leak", "val", 1), ["val.txt line 1", "v0.jpg", "u2.jpg", "unlabeled.txt line 3"]),
    "duplicate": (lambda t: copy_image(t, "u4", "u3"),
                  ("duplicate", "unlabeled", 5), ["u4.jpg", "u3.jpg", "unlabeled.txt line 4"]),
    "shared mask": (lambda t: t.write_list("labeled", [*LINES[:2], "images/l2.jpg masks/l1.png"]),
                    ("shared mask", "labeled", 3), ["l1.png' is also the mask of 'images/l1.jpg'"]),
    "empty mask": (lambda t: fill_mask(t, "l1", 255),
                   ("empty mask", "labeled", 2), ["line 2", "l1.png", "all pixels are ignored"]),
    "absent": (lambda t: fill_masks(t, "v", 0),
               ("absent class", "val", 0), ["val.txt", "tree, road"]),
    "few": (lambda t: t.write_list("val", ["images/v0.jpg masks/v0.png"]),
            ("small val", "val", 0), ["val.txt: 1 validation image, expected", "--folds"]),
    "crops": (lambda t: t.change(crop_size=129),
              ("ignored crops", "labeled", 0), ["labeled.txt", "129 pixels", "100%"]),
    "shared volume": (lambda t: t.change(evaluation={"volume_pattern": "images/.([1-9])"}),
                      ("shared volume", "val", 0),
                      ["val.txt: 2 of 2 volumes, such as 1, have slices in", "labeled.txt and"]),
    "normalisation": (lambda t: (store_deep(t), t.change_data(image_range=[0, 25500])),
                      ("normalisation", "labeled", 0),
                      ["red has mean 0.0", "after data.image_range, the config says 0.485, 0.229",
                       "Fix: data.mean: [0.0"]),
}  # fmt: skip


def test_every_kind_of_problem_is_planted():
    assert {kind for _, (kind, *_), _ in PLANTED.values()} == set(ERRORS) | set(WARNINGS)


@pytest.mark.parametrize("case", PLANTED)
def test_planted_problem(case, toy, inspect):
    plant, (kind, name, line), parts = PLANTED[case]
    plant(toy)
    code, out, report = inspect()
    found = [
        p for p in report["problems"] if (p["kind"], p["list"], p["line"]) == (kind, name, line)
    ]
    assert len(found) == 1, report["problems"]
    assert all(part in found[0]["message"] and part in out for part in parts)
    assert found[0]["severity"] == ("error" if kind in ERRORS else "warning")
    assert code == (1 if kind in ERRORS else 0) and report["ok"] == (code == 0)
    others = {p["kind"] for p in report["problems"]} - {kind}
    assert others <= {"empty mask", "ignored crops", "small val"}, report["problems"]


@pytest.mark.parametrize("orientation", [3, 6])
def test_an_upright_mask_fits_an_image_that_exif_turns(orientation, toy, inspect):
    store_turned(toy, "l1", orientation, mask_too=False)
    code, out, report = inspect()
    assert code == 0 and "no problems found" in out
    assert report["lists"]["labeled"]["sizes"] == {"52x44": 3}


def test_all_problems_at_once(toy, inspect):
    for name in ("l0", "l1", "l2", "v0"):
        edit_mask(toy, name, 99)
    for name in ("u0", "v1"):
        spoil(toy, name)
    code, out, report = inspect("--show", 2)
    kinds = [problem["kind"] for problem in report["problems"]]
    assert code == 1 and kinds == ["unreadable"] * 2 + ["mask"] * 4
    assert out.count("mask value 99") == 2 and "... and 2 more" in out
    assert "(4)" in out and "no problems found" not in out


def test_figures(toy, inspect):
    code, out, report = inspect()
    assert code == 0 and "no problems found" in out and report["problems"] == []
    assert out.startswith("reading    11 images and their masks\nlabeled ")
    assert list(report["lists"]) == ["labeled", "unlabeled", "val"]
    labeled = report["lists"]["labeled"]
    assert labeled["images"] == 3 and labeled["sizes"] == {"52x44": 3}
    masks = [np.array(Image.open(toy.root / f"masks/l{i}.png")) for i in range(3)]
    for value, name in enumerate(("sky", "tree", "road")):
        pixels = int(sum((mask == value).sum() for mask in masks))
        assert labeled["classes"][name] == {
            "pixels": pixels, "share": pixels / (3 * 52 * 44), "images": 3
        }  # fmt: skip
        assert labeled["values"][str(value)] == pixels
    assert labeled["ignored"]["pixels"] == labeled["values"]["255"] == 3 * 52
    assert labeled["crops"]["drawn"] == 12
    assert "labeled: 12 random crops (4 per image, padding counts as ignored): " in out
    assert report["lists"]["unlabeled"]["sizes"] == {"60x40": 5}
    assert labeled["modes"] == {"RGB": 3} and labeled["bits"] == {"8": 3}
    assert labeled["exif"] == {"1": 3} and labeled["shapes"] == {"landscape": 3}
    assert sum(labeled["brightness"].values()) == 3
    assert "classes" not in report["lists"]["unlabeled"]
    share = labeled["classes"]["tree"]["share"]
    assert re.search(rf"tree +{share:.2%} +3 ", out)


def test_label_map_and_lists_from_the_command_line(toy, inspect, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(LINES[0] + "\n")
    map_ = "data.label_map={0: sky, 1: road, 255: ignore, other: ignore}"
    code, out, report = inspect("--labeled-id-path", other, "--set", map_)
    labeled = report["lists"]["labeled"]
    assert code == 0 and labeled["images"] == 1 and labeled["source"] == str(other)
    assert labeled["classes"]["tree"]["pixels"] == 0 and labeled["values"]["2"] > 0
    assert [p["kind"] for p in report["problems"]] == ["absent class"] * 2


def test_folders_and_test_images(toy, inspect):
    for i in range(2):
        write_sample(toy.root / "test", f"t{i}")
    toy.change_data(test={"images": "test/images", "masks": "test/masks"})
    code, _, report = inspect()
    assert code == 0 and report["lists"]["test"]["images"] == 2
    shutil.copy(toy.root / "images/v0.jpg", toy.root / "test/images/t0.jpg")
    (toy.root / "test/masks/t1.png").unlink()
    code, _, report = inspect()
    assert code == 1 and {p["kind"] for p in report["problems"]} == {"line", "leak", "size"}


def test_blank_images_are_no_leak(toy, inspect):
    for name in ("l0", "v0"):
        path = toy.root / f"images/{name}.jpg"
        Image.new("RGB", Image.open(path).size).save(path)
    code, out, report = inspect()
    assert code == 0 and not report["problems"], out


def test_errors_of_the_user(toy, inspect, tmp_path):
    precious = tmp_path / "notes.html"
    precious.write_text("mine")
    for more, part in (
        (["--html", precious], "is not a report of this command"),
        (["--html", tmp_path / "no/x.html"], "folder does not exist"),
        (["--labeled-id-path", "none.txt"], "none.txt: no such split file"),
        (["--set", "data.labeled=null"], "data.labeled: not set"),
        (["--set", "epochs=0"], "epochs"),
        (["--show", "-1"], "--show: found -1, expected 0 or more"),
    ):
        code, out, _ = inspect(*more)
        assert code == 2 and part in out and out.count("\n") == 1
    assert precious.read_text() == "mine"
