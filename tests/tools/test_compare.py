"""tools.compare: one picture of images, ground truth and several networks."""

import shutil

import pytest
import yaml
from PIL import Image

from dataset import reader
from tools import compare
from util.config.data import Data


@pytest.fixture
def runs(trained, tmp_path):
    return trained, shutil.copytree(trained, tmp_path / "b")


def test_a_row_for_each_network(runs, run, tmp_path, monkeypatch):
    out, files, read = tmp_path / "figures/two.svg", [], reader.read_bands
    monkeypatch.setattr(reader, "read_bands", lambda *of: files.append(of) or read(*of))
    text = run(compare, *runs, "--names", "SupOnly", "again", "--out", out).output()
    assert text.endswith(f"{out}: 3 images, 2 networks\n")
    drawn = out.read_text()
    for word in ("image", "ground truth", "SupOnly", "again", "sky", "tree", "road"):
        assert f">{word}<" in drawn
    assert drawn.count("<image") == 4 * 3 and len(files) == 3, "each image is read once"
    assert "warning" not in text
    one = tmp_path / "one.png"
    text = run(compare, runs[0], "--images", "v2", "--out", one).output()
    assert f"{one}: 1 image, 1 network\n" in text and one.exists()


def test_images_that_a_network_was_not_validated_on_are_named(runs, run, toy, tmp_path):
    toy.write_list("val", toy.path("labeled").read_text().splitlines()[:1])
    code, text, err = run(compare, *runs, "--names", "a", "b", "--out", tmp_path / "two.png")
    for name in "ab":
        assert f"warning: {name}: " in text and "may have been trained on some" in text, err


@pytest.mark.filterwarnings("error", "ignore:Glyph")
@pytest.mark.parametrize("name, count, size", [
    ("runs/" + 20 * "long/", 3, (4, 200)), ("$x_$", 100, (200, 4)), (30 * "道", 9, (8, 8)),
], ids=["long", "many", "wide"])  # fmt: skip
def test_all_names_have_room(name, count, size, tmp_path):
    classes = [f"class {name[:20]} {i}" for i in range(count)]
    rows = {name: [Image.new("RGB", size)], "image": [Image.new("RGB", size)]}
    data = Data(name="d", root=".", classes=classes, val="v")
    figure = compare.draw_sheet(rows, True, data)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [*classes, "ignored"]
    compare.save(figure, tmp_path / "sheet.png", "png")
    left, bottom, right, top = figure.get_tightbbox().extents  # inches
    assert left > -0.25 and bottom > -0.25
    assert right < figure.get_figwidth() + 0.25 and top < figure.get_figheight() + 0.25


def test_mistakes_are_one_line(runs, run, user_error, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").touch()
    (tmp_path / "mine.png").touch()
    for options, problem in (
        (["--out", "x.gif"], ".png, .svg or .pdf"),
        (["--out", "x.png", "--names", "one"], "1 name for 2 checkpoints"),
        (["--out", "x.png", "--names", "one", "one"], "--names: 'one' is given twice"),
        (["--out", "x.png", "--images", "nowhere"], "--images nowhere"),
        (["--out", "x.png", "--split", "test"], "data.test"),
        (["--out", "x.png", "--count", "0"], "--count"),
        (["--out", "a file/x.png"], "a file: cannot be made"),
        (["--out", "mine.png"], "--out mine.png: exists already. Fix: choose another name"),
    ):
        assert problem in user_error(compare, *runs, *options)
    err = user_error(compare, *runs, runs[1], "--out", "x.png")
    assert f"error: CHECKPOINT: '{runs[1]}' is given twice; expected a different one" in err
    path = runs[1] / "config.yaml"
    config = yaml.safe_load(path.read_text())
    for other, problem in (
        ({"classes": ["air", "tree", "road"]}, "its classes differ"),
        ({"pair": "column"}, "its images per sample (2) differ from those of"),
    ):
        path.write_text(yaml.safe_dump(config | {"data": config["data"] | other}))
        err = run(compare, *runs, "--out", "x.png").mistake()
        assert problem in err and not (tmp_path / "x.png").exists()
