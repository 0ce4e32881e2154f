"""predict.py: file formats, continuing, confidence, and errors of configs."""

import csv
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
import predict
from dataset.bands import read_bands
from inference.predictor import Predictor
from model.trained import load_trained
from tests.conftest import write_sample
from tests.own_images import save_image
from util.config.loading import load_config


@pytest.fixture
def command(trained, toy, run, tmp_path):
    def predicted(*more):
        argv = ["--checkpoint", trained / "best.pth", "--images", toy.root / "images",
                "--save-path", tmp_path / "out", *more]  # fmt: skip
        return run(predict, *argv)

    return predicted


def masks(folder):
    return {p.relative_to(folder / "masks").as_posix() for p in folder.rglob("masks/**/*.png")}


def test_config_of_the_run_and_any_files(command, toy, tmp_path):
    images = toy.root / "images"
    (images / "._l0.jpg").write_bytes(b"left by macOS")
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (20, 10)).save(tmp_path / "elsewhere/a.png")
    (images / "linked").symlink_to(tmp_path / "elsewhere")
    (images / "bad.jpg").write_bytes(b"no image")
    (images / "circle.jpg").symlink_to("circle.jpg")
    code, out, err = command()
    assert code == 1 and err.count("error: ") == err.count("\n") == 2
    assert "written  12 masks, 2 failed" in out and "circle.jpg" in err
    assert "bad.jpg: not a readable image" in err
    found = masks(tmp_path / "out")
    assert len(found) == 12 and "linked/a.png" in found
    assert "next     " in out
    (tmp_path / "elsewhere/b.png").write_bytes(b"no image")
    bad = ["--images", tmp_path / "elsewhere/b.png", "--save-path", tmp_path / "none"]
    code, out, err = command(*bad)
    assert code == 1 and "written  0 masks, 1 failed" in out and "next" not in out, err


def test_the_same_command_continues_and_another_is_refused(command, tmp_path):
    command().output()
    out = tmp_path / "out"
    (out / "masks/l1.png").unlink()
    before = (out / "masks/l0.png").stat().st_mtime_ns
    output = command().output()
    assert "skipped  10 images" in output and "written  1 mask" in output
    assert (out / "masks/l1.png").exists()
    assert (out / "masks/l0.png").stat().st_mtime_ns == before
    for another in (["--set", "evaluation.mode=resize"], ["--overlays", "png"]):
        err = command(*another).mistake()
        assert "made_by.json: these predictions were made with another" in err


def test_predictions_are_not_mixed_into_masks_of_the_user(command, tmp_path):
    save_image(Image.new("L", (2, 1)), tmp_path / "data/masks/mine.png")
    err = command("--save-path", tmp_path / "data").mistake()
    assert "data/masks: exists already, and was not written by this command" in err
    assert [p.name for p in (tmp_path / "data").rglob("*.*")] == ["mine.png"]


@pytest.mark.parametrize("where", ["", "first"])
@pytest.mark.parametrize("kind", ["confidence", "entropy"])
def test_outputs_are_no_images(where, kind, command, toy):
    """Leave out what was predicted into the folder of the images, or into folders in it."""
    images = toy.root / "images"
    out = ["--confidence", kind, "--probabilities", "--save-path"]
    for folder in (images / where, images / where, images / "second"):
        command(*out, folder).output()
        assert len(masks(folder)) == 11


def test_other_images_of_the_same_names_are_refused(command, toy, tmp_path):
    (tmp_path / "day2").mkdir()
    copy = shutil.copy(toy.root / "images/l0.jpg", tmp_path / "day2/l0.jpg")
    command().output()
    for images in (tmp_path / "day2", toy.root / "images"):
        err = command("--images", images).mistake()
        assert "l0.png: was predicted from" in err
        shutil.copy(copy, toy.root / "images/l0.jpg")  # has changed
    write_sample(tmp_path / "more", "new", mask=False)
    assert command("--images", tmp_path / "more/images")[0] == 0  # images can be added


@pytest.mark.parametrize("file", ["masks/l1.png", "overlays/l1.jpg"])
def test_a_command_killed_while_writing_continues(file, command, tmp_path, monkeypatch):
    saved, out = Image.Image.save, tmp_path / "out"

    def dying(self, target, *more, **options):
        saved(self, target, *more, **options)
        written = Path(getattr(target, "name", target))
        if written.name.startswith(Path(file).name):
            os.truncate(written, 100)
            raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", dying)
    code, output, _ = command()
    assert code == 130 and re.search(r"stopped; \d+ images? left.*\nwritten  \d+ mask", output)
    assert (out / "masks/l0.png").exists() and not (out / file).exists()
    monkeypatch.undo()
    output = command().output()
    assert "already predicted" in output and "written  " in output
    assert len(masks(out)) == 11 and Image.open(out / file).load()


def test_an_image_without_a_line_in_areas_csv_is_not_finished(command, tmp_path):
    """Neither if a killed command tore its line, nor if the table is removed."""
    command().output()
    areas = tmp_path / "out/areas.csv"
    head, *lines = areas.read_text().splitlines(keepends=True)
    for kept, written in ((lines[:9], "2 masks"), ([*lines[:10], lines[10][:-2]], "1 mask")):
        areas.write_text("".join([head, *kept]))
        assert f"written  {written};" in command().output()
        assert sorted(areas.read_text().splitlines(keepends=True)[1:]) == sorted(lines)
    areas.unlink()
    assert "written  11 masks;" in command().output()
    assert sorted(areas.read_text().splitlines(keepends=True)[1:]) == sorted(lines)


def test_confidence_and_probabilities(command, trained, toy, tmp_path):
    more = ["--tta", "flip", "0.8", "1", "--set", "evaluation.mode=sliding_window"]
    command("--confidence", "--probabilities", *more).output()
    command("--confidence", "entropy", *more, "--save-path", tmp_path / "more").output()
    sets = ["evaluation.flip=true", "evaluation.scales=[0.8, 1]", more[-1]]
    config, cpu = load_config(trained / "config.yaml", sets), torch.device("cpu")
    network = load_trained(config, trained / "best.pth", "model", cpu)
    for name in ("l0", "u1"):
        pixels = read_bands(toy.root / f"images/{name}.jpg", config.data)[0]
        p = Predictor(network, config, cpu).probabilities(pixels).numpy()
        with np.load(tmp_path / f"out/probabilities/{name}.npz") as file:
            found = file["probabilities"]
        assert found.dtype == np.float16 and found.shape == p.shape
        np.testing.assert_allclose(found, p, atol=1e-3)
        assert (np.array(Image.open(tmp_path / f"out/masks/{name}.png")) == p.argmax(0)).all()
        shade = Image.open(tmp_path / f"out/confidence/{name}.png")
        assert shade.mode == "L"
        np.testing.assert_allclose(np.array(shade), 255 * p.max(0), atol=0.51)
        unsure = np.array(Image.open(tmp_path / f"more/entropy/{name}.png"))
        entropy = -(p * np.log(p)).sum(0) / np.log(3)
        np.testing.assert_allclose(unsure, 255 * entropy, atol=0.51)
    assert {folder.name for folder in (tmp_path / "more").iterdir() if folder.is_dir()} == {
        "masks", "overlays", "entropy"
    }  # fmt: skip
    (tmp_path / "out/probabilities/l0.npz").unlink()
    output = command("--confidence", "--probabilities", *more).output()
    assert "skipped  10 images already predicted" in output
    assert (tmp_path / "out/probabilities/l0.npz").exists()
    err = command("--confidence", "--tta", "0").mistake()
    assert "evaluation.scales.0" in err and "greater than 0" in err


def test_areas_overlays_and_values(command, toy, tmp_path):
    command().output()
    out = tmp_path / "out"
    with (out / "areas.csv").open(newline="") as file:
        lines = {line["image"]: line for line in csv.DictReader(file)}
    assert len(lines) == 11
    for name, line in lines.items():
        mask = np.array(Image.open(out / f"masks/{name}.png"))
        pixels = [int(line[name]) for name in toy.tree["data"]["classes"]]
        assert pixels == [(mask == index).sum() for index in range(3)]
        picture = Image.open(out / f"overlays/{name}.jpg")
        assert picture.format == "JPEG" and picture.height > mask.shape[0]
    values = ["--set", "data.label_map={10: sky, 20: tree, 30: road}", "--values"]
    more = ["--overlays", "png", *values, "--save-path", tmp_path / "values"]
    command(*more).output()
    mask = np.array(Image.open(out / "masks/l0.png"))
    assert (np.array(Image.open(tmp_path / "values/masks/l0.png")) == 10 * mask + 10).all()
    assert Image.open(tmp_path / "values/overlays/l0.png").format == "PNG"
    none = ["--overlays", "none", "--save-path", tmp_path / "none"]
    assert command(*none)[0] == 0 and not (tmp_path / "none/overlays").exists()
    err = command("--set", "data.label_map={1: sky, 2: tree, other: road}",
                  "--values", "--save-path", tmp_path / "no").mistake()  # fmt: skip
    assert "class 'road'" in err and not (tmp_path / "no").exists()


def test_large_images_go_in_windows(command, tmp_path):
    Image.new("RGB", (1600, 40)).save(tmp_path / "long.png")
    out = command("--images", tmp_path / "long.png").output()
    assert "1 image much larger than crops" in out and "sliding windows" in out
    out = command("--images", tmp_path / "long.png", "--save-path", tmp_path / "whole",
                  "--set", "evaluation.mode=original").output()  # fmt: skip
    assert "sliding windows" not in out


def test_too_many_pixels_and_too_little_memory(command, tmp_path, monkeypatch):
    Image.new("L", (2000, 1000)).save(tmp_path / "big.png")
    image = ["--images", tmp_path / "big.png"]
    code, _, err = command(*image, "--set", "data.max_megapixels=1")
    assert code == 1 and "big.png: 2000x1000 pixels" in err and "data.max_megapixels" in err

    def fail(*_):
        raise RuntimeError("[x] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")

    monkeypatch.setattr(Predictor, "probabilities", fail)
    code, _, err = command(*image, "--save-path", tmp_path / "other")
    assert code == 1 and "big.png: out of memory" in err and "sliding_window" in err


def test_a_config_that_does_not_fit(trained, toy, run, user_error, tmp_path):
    common = ["--checkpoint", trained / "best.pth"]
    images = ["--images", toy.root / "images", "--save-path", tmp_path / "out"]
    changed = ["--config", toy.config, "--set", "data.classes=[a, b, c, d]",
               "model.backbone=resnet18"]  # fmt: skip
    for script, more in ((evaluate, []), (predict, images)):
        err = user_error(script, *common, *more, *changed)
        assert "data.classes (3 -> 4)" in err
        assert "model.backbone (test_resnet -> resnet18)" in err and "Fix: --config" in err
    for classes, expected, words in (
        ("[sky, road, tree]", 2, "data.classes (tree -> road, road -> tree)"),
        ("[sky, road, path]", 2, "data.classes (tree -> road, road -> path)"),
        ("[sky, tree, street]", 0, "other class names (road -> street)"),
        ("[sky, tree, road]", 0, "images"),
    ):
        more = ["--config", toy.config, "--set", f"data.classes={classes}"]
        code, output, err = run(evaluate, *common, *more)
        assert code == expected and words in output + err and err.count("\n") == (code == 2)
        assert ("other class names" in output) == ("street" in classes)
    for key, value in (("data.mean", "[0.5, 0.5, 0.5]"), ("data.bands", "[3, 2, 1]")):
        output = run(evaluate, *common, "--config", toy.config, "--set", f"{key}={value}").output()
        assert f"trained with another config: {key} (" in output and value in output
    (trained / "config.yaml").unlink()
    assert "no config beside the checkpoint" in user_error(predict, *common, *images)
