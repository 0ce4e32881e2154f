"""tools.compare: one picture of images, ground truth and several networks."""

import shutil

import pytest
import yaml

from supervised import SupOnly
from tools import compare


@pytest.fixture
def runs(toy, train, tmp_path, capsys):
    """A run and its copy."""
    train(SupOnly, toy.argv(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    capsys.readouterr()
    return tmp_path / "a", tmp_path / "b"


def test_a_row_for_each_network(runs, run, tmp_path):
    out = tmp_path / "figures/two.svg"
    code, text, err = run(compare, *runs, "--names", "SupOnly", "again", "--out", out)
    assert code == 0 and text.endswith(f"{out}: 3 images, 2 networks\n"), err
    drawn = out.read_text()
    for word in ("image", "ground truth", "SupOnly", "again", "sky", "tree", "road"):
        assert f">{word}<" in drawn
    assert drawn.count("<image") == 4 * 3


def test_images_are_chosen_by_name(runs, run, tmp_path):
    out = tmp_path / "one.png"
    code, text, err = run(compare, runs[0], "--images", "v2", "--out", out)
    assert code == 0 and f"{out}: 1 image, 1 network\n" in text and out.exists(), err


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--out", "x.gif"], ".png, .svg or .pdf"),
        (["--out", "x.png", "--names", "one"], "1 name for 2 checkpoints"),
        (["--out", "x.png", "--names", "one", "one"], "given twice"),
        (["--out", "x.png", "--images", "nowhere"], "--images nowhere"),
        (["--out", "x.png", "--split", "test"], "data.test"),
        (["--out", "x.png", "--count", "0"], "--count"),
        (["--out", "a file/x.png"], "a file: cannot be made"),
        (["--out", "a file.png"], "a file.png: cannot be written"),
    ],
)
def test_bad_options_are_one_line(runs, run, monkeypatch, tmp_path, options, problem):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").touch()
    (tmp_path / "a file.png").mkdir()
    code, _, err = run(compare, *runs, *options)
    assert code == 2 and problem in err and err.count("\n") == 1
    assert not (tmp_path / "x.png").exists()


def test_other_classes_are_refused(runs, run, tmp_path):
    path = runs[1] / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["data"]["classes"][0] = "air"
    path.write_text(yaml.safe_dump(config))
    code, _, err = run(compare, *runs, "--out", tmp_path / "x.png")
    assert code == 2 and "classes differ" in err
