"""Segmenter: a trained network in a Python program."""

import io
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import evaluate
import predict
from dataset.tiff import GDAL_NODATA_TAG
from inference import Segmenter
from tests.conftest import REPOSITORY
from tests.own_images import exif_with_orientation, save_image
from util import distributed
from util.errors import UserError


def test_a_device_is_honoured_or_refused(trained, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # the driver is too old
    assert distributed.choose_device("auto") == torch.device("cpu")
    segmenter = Segmenter.load(trained, device=torch.device("cpu"))
    assert next(segmenter.predictor.network.parameters()).device.type == "cpu"
    monkeypatch.setattr("util.distributed.gpu_count", lambda: 2)
    for name in ("cpu", "cuda:0", "cuda:1"):
        assert distributed.choose_device(name) == torch.device(name)
        assert distributed.choose_device(torch.device(name)) == torch.device(name)
    for name in ("mps", "gpu", "cuda:2", "CPU"):
        with pytest.raises(UserError, match=f"device: found {name}, expected auto, cpu, cuda"):
            distributed.choose_device(name)


def test_files_arrays_and_pil_images_give_the_same_prediction(trained, toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # as a program elsewhere
    segmenter = Segmenter.load("run", device="cpu")
    file = toy.root / "images/l0.jpg"
    image = Image.open(file)
    found = segmenter.predict(file)
    assert found.mask.shape == image.size[::-1] and found.mask.dtype == np.uint8
    assert (found.probabilities.argmax(0) == found.mask).all()
    np.testing.assert_allclose(found.probabilities.sum(0), 1, atol=1e-5)
    assert found.classes == segmenter.config.data.classes
    assert found.classes is not segmenter.config.data.classes, "the caller may change it"
    others = [str(file), image, np.asarray(image.convert("RGB"))]
    masks = [one.mask for one in segmenter.predict_many(others)]
    assert len(masks) == 3 and all((mask == found.mask).all() for mask in masks)


def test_pil_images_of_every_mode_are_read_like_files(trained, toy, tmp_path):
    segmenter = Segmenter.load(trained, device="cpu")
    for mode in ("L", "LA", "P", "1", "RGBA"):
        Image.open(toy.root / "images/l0.jpg").convert(mode).save(tmp_path / "image.png")
        image = Image.open(tmp_path / "image.png")
        for bands in ("rgb", "grey", (1, 1, 1)):
            data = segmenter.config.data.model_copy(update={"bands": bands})
            segmenter.config = segmenter.config.model_copy(update={"data": data})
            try:
                expected = segmenter._pixels(tmp_path / "image.png")[0]
            except UserError:
                with pytest.raises(UserError):
                    segmenter._pixels(image)
            else:
                np.testing.assert_array_equal(segmenter._pixels(image)[0], expected)


def test_a_pil_image_is_rotated_like_its_file(trained, toy, tmp_path):
    image = Image.open(toy.root / "images/l0.jpg")
    image.crop((0, 0, 40, 24)).save(tmp_path / "image.png", exif=exif_with_orientation(6))
    segmenter = Segmenter.load(trained, device="cpu")
    expected = segmenter.predict(tmp_path / "image.png").mask
    assert expected.shape == (40, 24)
    np.testing.assert_array_equal(
        segmenter.predict(Image.open(tmp_path / "image.png")).mask, expected
    )


def test_unsuitable_input_is_refused(trained):
    segmenter = Segmenter.load(trained / "best.pth", device="cpu")
    with pytest.raises(UserError, match="no such checkpoint"):
        Segmenter.load(trained / "none.pth")
    for shape, words in (
        ((9, 9, 5), "5 bands"),
        ((3, 9, 40), r"\[height, width, bands\]"),
        ((2, 9, 9, 3), r"found an array \[2, 9, 9, 3\]"),
    ):
        with pytest.raises(UserError, match=words):
            segmenter.predict(np.zeros(shape, np.uint8))
    for kind in (np.float32, np.int64, bool):
        with pytest.raises(UserError, match=r"expected uint8, from 0 to 255 \(not divided"):
            segmenter.predict(np.zeros((9, 9, 3), kind))
    for image in (b"bytes", io.BytesIO(), None, ["a.png"]):
        with pytest.raises(UserError, match=f"found {type(image).__name__}; expected a path"):
            segmenter.predict(image)


def test_a_cpu_that_would_emulate_16_bits_computes_in_float32(trained, run, tmp_path, monkeypatch):
    text = (trained / "config.yaml").read_text()
    assert "precision: float32" in text
    config = tmp_path / "gpu.yaml"
    config.write_text(text.replace("precision: float32", "precision: bfloat16"))
    for flags, precision in (({"amx_bf16"}, "bfloat16"), (set(), "float32")):
        monkeypatch.setattr("util.precision.cpu_flags", lambda flags=flags: flags)
        segmenter = Segmenter.load(trained, device="cpu", config=config)
        assert segmenter.predictor.config.precision == precision
    scores = run(evaluate, "--checkpoint", trained, "--config", config)
    assert "this CPU emulates bfloat16" in scores[2]


def test_a_checkpoint_without_its_folder_takes_a_config(trained, tmp_path):
    shutil.copy(trained / "best.pth", tmp_path / "alone.pth")
    with pytest.raises(UserError, match=r"no config beside the checkpoint\. .*config=\.\.\.\)"):
        Segmenter.load(tmp_path / "alone.pth")
    segmenter = Segmenter.load(tmp_path / "alone.pth", "model", "cpu", trained / "config.yaml")
    assert segmenter.predict(np.zeros((9, 9, 3), np.uint8)).mask.shape == (9, 9)


def test_pixels_without_data_are_ignored_as_by_predict(trained, run, tmp_path):
    values = np.random.default_rng(0).integers(1, 256, (40, 48, 3), dtype=np.uint8)
    values[:9, 5:], values[20, 20, 0] = 0, 0  # no data, and one band alone
    file = tmp_path / "images/a.tif"
    file.parent.mkdir()
    tifffile.imwrite(
        file, values, photometric="rgb", extratags=[(GDAL_NODATA_TAG, "s", 0, "0", True)]
    )
    found = run(predict, "--checkpoint", trained, "--images", file, "--save-path", tmp_path / "out")
    expected = np.array(Image.open(tmp_path / "out/masks/a.png"))
    assert found[0] == 0 and (expected[:9, 5:] == 255).all() and (expected == 255).sum() == 9 * 43
    segmenter = Segmenter.load(trained, device="cpu")
    for image in (file, Image.open(file), np.ma.masked_equal(values, 0)):
        np.testing.assert_array_equal(segmenter.predict(image).mask, expected)
    assert segmenter.predict(values).mask.max() < 3


def test_pairs_for_change_detection(pair_run, run, tmp_path):
    names = ["earlier", "later"]
    values = np.random.default_rng(0).integers(0, 256, (2, 40, 44, 3), dtype=np.uint8)
    for name, pixels in zip(names, values, strict=True):
        save_image(pixels, tmp_path / name / "a.png")
    argv = ["--images", tmp_path / "earlier", "--second", tmp_path / "later"]
    run(predict, "--checkpoint", pair_run, "--save-path", tmp_path / "out", *argv).output()
    expected = np.array(Image.open(tmp_path / "out/masks/a.png"))
    segmenter = Segmenter.load(pair_run, device="cpu")
    files = [tmp_path / name / "a.png" for name in names]
    pairs = [files, tuple(values), [files[0], Image.open(files[1])]]
    for found in segmenter.predict_many(pairs):
        np.testing.assert_array_equal(found.mask, expected)
    hole = np.ma.masked_array(values[1], np.zeros_like(values[1], bool))
    hole[:3] = np.ma.masked
    mask = segmenter.predict([values[0], hole]).mask
    assert (mask[:3] == 255).all() and mask[3:].max() < 255
    for wrong, words in ((files[0], "expected \\(earlier, later\\)"), (files[:1], "was trained on"),
                         ("ab", "was trained on"),
                         ([files[0], values[1][:9]], "differ in size")):  # fmt: skip
        with pytest.raises(UserError, match=words):
            segmenter.predict(wrong)


def test_pip_install_is_refused_with_the_reason(tmp_path):
    pytest.importorskip("pip")
    command = ["-m", "pip", "install", "--no-deps", "--no-index", "--target", tmp_path, REPOSITORY]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert done.returncode == 1 and not [*tmp_path.iterdir()]
    assert "cannot be installed as a package: its packages (util, model," in done.stderr
