"""Proposals of `prepare init`: presets, pretrained weights, schedules, rare classes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inference.overlay import overlay
from model import hub
from tests.conftest import touch
from tests.own_images import save_image, write_images, write_masks
from tools.prepare.own import settings
from tools.prepare.own.images import ImageFile
from tools.prepare.own.settings import fit_schedule, seconds_of
from util import paths
from util.config.loading import load_config
from util.errors import UserError

CONFIG = "configs/mine.yaml"


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr(hub, "is_on_hub", lambda name: False)


@pytest.fixture
def images(init):
    """Six images of 400 x 300 pixels with masks, in folders of the working directory."""
    for stem in write_images(Path("images"), size=(400, 300)):
        mask = (np.arange(300 * 400) // 40000).astype(np.uint8).reshape(300, 400)
        save_image(mask, f"masks/{stem}.png")


@pytest.mark.parametrize("gpu, preset", [(False, "small"), (True, "base")])
def test_the_device_chooses_a_preset(gpu, preset, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    image = ImageFile(Path("a.png"), (64, 64), "rgb", np.zeros((1, 3)))
    assert settings.choose_settings([image], 1, 0, preset=None).preset == preset


@pytest.mark.parametrize(
    "preset, model, crop, script",
    [
        ("small", "efficientnet_lite0", 193, "fixmatch"),
        ("base", "resnet50s", 257, "unimatch"),
        ("large", "vit_base_patch14_dinov2", 252, "unimatch_v2"),
    ],
)
def test_presets(preset, model, crop, script, init, images):
    write_images(Path("more"), size=(400, 300))
    code, out, err = init("--preset", preset, "--unlabeled", "more")
    config = load_config(CONFIG)
    assert code == 0, err
    assert config.model.backbone == model and config.crop_size == crop
    assert f"preset {preset}, {model}" in out
    assert f"baseline python supervised.py --config {CONFIG}" in out
    assert f"method   python {script}.py --config {CONFIG} --save-path runs/mine/{script}" in out


def test_weights_are_taken_where_they_are(init, images, monkeypatch):
    def found():
        _, out, _ = init("--preset", "small", "--force")
        config = load_config(CONFIG)
        return config.model.pretrained, config.optimizer.lr, "no file, and no internet" in out

    assert found() == ("none", 0.01, True)
    out, comment = init("--preset", "small", "--force").out, Path(CONFIG).read_text()
    for text in (out, comment.replace("\n# ", " ")):
        assert "python -m tools.weights fetch efficientnet_lite0, then copy pretrained/eff" in text
    monkeypatch.setattr(hub, "is_on_hub", lambda name: True)
    assert found() == ("hub", 0.001, False)
    touch(Path(), ["pretrained/efficientnet_lite0.pth"])
    assert found() == ("file", 0.001, False)
    monkeypatch.setattr(paths, "REPOSITORY", Path("repository").absolute())
    shutil.move("pretrained", "repository/pretrained")  # where a training looks, too
    assert found() == ("file", 0.001, False)


def test_times():
    assert [*map(seconds_of, ("90min", "2h", "1.5d"))] == [5400, 7200, 129600]
    for text in ("", "2", "-1h", "0h", "h", "2 hours", "1e9h"):
        with pytest.raises(UserError, match="expected a time such as 90min"):
            seconds_of(text)


@pytest.mark.parametrize("seconds, validation, epochs, steps", [
    (1e9, 10, 80, 100),  # everything fits
    (20 * 110, 10, 20, 100),
    (550, 10, 10, 45),  # ten shorter epochs
    (60, 10, 3, 10),  # validation takes half of the time
    (3600, 400, 7, 100),  # it takes more, with epochs of the usual length
    (11, 10, 0, 0),
])  # fmt: skip
def test_a_schedule_fits_its_time(seconds, validation, epochs, steps):
    """100 steps of a second and a validation make an epoch."""
    if not epochs:
        with pytest.raises(UserError, match="a validation takes 10 s and a step 1.0 s"):
            fit_schedule(seconds, 80, 100, 1.0, validation)
        return
    assert fit_schedule(seconds, 80, 100, 1.0, validation) == (epochs, steps)
    assert epochs * (steps + validation) <= seconds


@pytest.mark.parametrize("unlabeled, steps", [(40, 100), (480, 120)])
def test_all_methods_take_equally_many_steps(unlabeled, steps):
    """SupOnly does not read the unlabelled images; `epoch_length` gives it the same steps."""
    image = ImageFile(Path("a.png"), (64, 64), "rgb", np.zeros((1, 3)))
    found = settings.choose_settings([image], 1, unlabeled, "small")
    assert found.config["epoch_length"] == steps


def test_a_time_budget_is_measured(init, monkeypatch):
    model = {"backbone": "test_resnet", "channels": 8, "aspp_rates": [1, 2, 3]}
    monkeypatch.setitem(settings.PRESETS, "small", settings.PRESETS["small"]._replace(model=model))
    write_masks(Path("masks"), write_images(Path("images")), "index")
    code, out, err = init("--preset", "small", "--time-budget", "30min")
    config = load_config(CONFIG)
    assert code == 0, err
    assert "measuring steps of supervised.py" in err and "time     about 0." in out
    assert 1 <= config.epochs <= 80 and config.epoch_length <= 100
    assert init("--time-budget", "soon", "--force")[0] == 2


def test_rare_classes_and_the_background(init, tmp_path):
    """Soil fills most of the images; weed a fraction of a percent."""
    mask = np.zeros((40, 50), np.uint8)
    mask[10:30, 10:20], mask[1:4, 1:4] = 1, 2
    for number in range(6):
        save_image(mask, f"masks/{number}.png")
        save_image(np.stack([mask * 80] * 3, -1), f"images/{number}.png")
    out = init("--classes", "soil,plant,weed").output()
    assert (
        "rare     weed: less than 2% of the pixels; try --set criterion.class_weights=auto" in out
    )
    text, config = Path(CONFIG).read_text(), load_config(CONFIG)
    assert "# Few pixels: weed (0.4%)" in text and "# criterion: {class_weights: auto}" in text
    assert config.data.background == "soil"
    photo = Image.new("RGB", (50, 40), (9, 99, 199))
    seen = np.array(overlay(photo, mask, config.data))
    assert tuple(seen[38, 45]) == (9, 99, 199) != tuple(seen[20, 15])


def test_the_background_is_a_class(toy):
    with pytest.raises(UserError, match="data.background: 'sand' is not in data.classes"):
        load_config(toy.config, ["data.background=sand"])
