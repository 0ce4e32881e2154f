"""The embedded dataset: the same files every time, and what its config says of it."""

import json

import numpy as np
import pytest
from PIL import Image

from data_tools.scenes import CLASSES, PALETTE, render_scene
from data_tools.shapes import generate
from dataset.check import check_files, read_lists
from dataset.files import open_mask
from dataset.labels import Labels
from util.config_file import load_config
from util.errors import UserError

FEW = {"labeled": 3, "unlabeled": 2, "val": 2, "progress": False}


def files(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_generation_is_deterministic_and_complete(tmp_path):
    generate(tmp_path / "a", **FEW)
    generate(tmp_path / "b", **FEW)
    a, b = files(tmp_path / "a"), files(tmp_path / "b")
    assert a == b
    masks = sorted(str(p) for p in a if p.parts[0] == "masks")
    assert masks == [*(f"masks/train/0000{i}.png" for i in range(3)),
                     *(f"masks/val/0000{i}.png" for i in range(2))]  # fmt: skip
    generate(tmp_path / "c", **FEW, seed=1)
    image = next(p for p in a if p.parts[0] == "images")
    assert files(tmp_path / "c")[image] != a[image]


def test_masks_hold_every_class_and_the_ignored_border():
    shares = np.zeros(256)
    for index in range(100):
        _, mask = render_scene(np.random.default_rng([0, 0, index]), 64)
        shares += np.bincount(mask.ravel(), minlength=256)
    shares /= shares.sum()
    present = np.flatnonzero(shares)
    assert present.tolist() == [*range(len(CLASSES)), 255]
    assert shares[1 : len(CLASSES)].min() > 0.02 and 0.02 < shares[255] < 0.2


def test_colour_tells_nothing_of_the_class():
    """Mean colours of the classes agree within what their spread explains."""
    colours = {c: [] for c in range(1, len(CLASSES))}
    for index in range(150):
        image, mask = render_scene(np.random.default_rng([1, 0, index]), 64)
        for c in colours:
            if (mask == c).sum() > 20:
                colours[c].append(image[mask == c].mean(0))
    means = np.array([np.mean(v, axis=0) for v in colours.values()])
    errors = np.array([np.std(v, axis=0) / len(v) ** 0.5 for v in colours.values()])
    z = (means - means.mean(0)) / errors
    assert np.abs(z).max() < 4


def test_files_are_what_the_loader_reads(tmp_path):
    generate(tmp_path / "shapes", **FEW)
    config = load_config(
        "configs/shapes.yaml",
        [f"data.root={tmp_path}/shapes"]
        + [f"data.{k}={tmp_path}/shapes/{k}.txt" for k in ("labeled", "unlabeled", "val")],
    )
    assert tuple(config.data.classes) == CLASSES and tuple(config.data.palette) == PALETTE
    lists = read_lists(config.data, unlabeled=True)
    check_files(config.data, *lists, warn=print)  # one scene lacks a class
    _, mask = render_scene(np.random.default_rng([0, 0, 1]), 64)
    read = open_mask(tmp_path / "shapes/masks/train/00001.png", Labels(config.data))
    np.testing.assert_array_equal(np.array(read), mask)


def test_nothing_is_overwritten(tmp_path):
    root = tmp_path / "shapes"
    generate(root, **FEW)
    Image.new("RGB", (2, 2)).save(root / "mine.png")
    generate(root, **FEW)  # the same: left as it is
    assert (root / "mine.png").exists()
    with pytest.raises(UserError, match="labeled 3 instead of 4"):
        generate(root, **FEW | {"labeled": 4})
    (root / "dataset.json").write_text(json.dumps([]))
    with pytest.raises(UserError, match="something else"):
        generate(root, **FEW)
    with pytest.raises(UserError, match="unlabeled is 0"):
        generate(tmp_path / "none", **FEW | {"unlabeled": 0})
