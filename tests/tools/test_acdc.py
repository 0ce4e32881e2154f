"""ACDC: from HDF5 to slices, masks and the published lists; the configs."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.cache import cache_bytes
from dataset.loaders import ProcessInfo, training_loader
from dataset.validation import read_splits
from tests.conftest import REPOSITORY
from tools.prepare import __main__ as prepare
from tools.prepare.official import acdc
from util.config.loading import load_config

h5py = pytest.importorskip("h5py")
SHARED = Path(os.environ.get("ACDC", REPOSITORY.parent / "shared/data/acdc"))
LISTS = {"1": (32, 1280), "3": (68, 1244), "7": (136, 1176)}


def write(path, shape, **keys):
    rng = np.random.default_rng(len(path.name))
    image, label = rng.random(shape, np.float32), rng.integers(0, 4, shape, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, value in ({"image": image, "label": label} | keys).items():
            if value is not None:
                file[key] = value
    return image, label


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "downloads/ACDC/data"
    for patient in (99, 38):
        write(folder / f"slices/patient{patient:03d}_frame01_slice_1.h5", (6, 5))
    for number in (10, 2):
        write(folder / f"slices/patient099_frame01_slice_{number}.h5", (6, 5))
    write(folder / "patient028_frame02.h5", (3, 4, 7))
    # Not of these sets: a slice of a test volume, a training volume, another file.
    write(folder / "slices/patient001_frame01_slice_1.h5", (6, 5))
    write(folder / "patient099_frame01.h5", (3, 4, 7))
    write(folder / "slices/notes.h5", (6, 5))
    return folder


def prepared(run, source, root, *more):
    return run(prepare, "acdc", "--source", source.parents[1], "--root", root, *more)


def test_slices_masks_and_lists(run, source, tmp_path, monkeypatch):
    code, out, err = prepared(run, source, tmp_path / "acdc", "--partial")
    assert code == 0 and "train 4, valtest 3" in out and "expected 1312" in err
    with h5py.File(source / "patient028_frame02.h5") as file:
        image, label = file["image"][()], file["label"][()]
    for number in range(3):
        name = f"valtest/patient028_frame02_slice_{number + 1}.png"
        found = np.asarray(Image.open(tmp_path / "acdc/images" / name))
        np.testing.assert_array_equal(found, np.rint(255 * image[number]))
        mask = np.asarray(Image.open(tmp_path / "acdc/masks" / name))
        np.testing.assert_array_equal(mask, label[number])
    lists = tmp_path / "acdc/lists"
    assert "incomplete: list val has 1 of 20 volumes, so it is not written" in err
    assert not lists.exists()
    monkeypatch.setattr(acdc, "_difference", lambda _, stems: "" if stems else "empty")  # complete
    assert "0 files made" in prepared(run, source, tmp_path / "acdc", "--partial").output()
    names = [f"patient099_frame01_slice_{number}" for number in (1, 2, 10)]
    lines = [f"images/train/{name}.png masks/train/{name}.png" for name in names]
    assert (lists / "1/labeled.txt").read_text().splitlines() == lines
    rest = (lists / "1/unlabeled.txt").read_text().splitlines()
    assert rest == ["images/train/patient038_frame01_slice_1.png"]
    assert len((lists / "val.txt").read_text().splitlines()) == 3
    assert not (lists / "test.txt").exists()
    assert "already there" in prepared(run, source, tmp_path / "acdc", "--partial")[1]


def test_lists_that_are_not_the_published_ones_are_refused(run, source, tmp_path):
    code, _, err = prepared(run, source, tmp_path / "acdc")
    message = (
        f"{source.parent}: incomplete: list val has 1 of 20 volumes, so it is not written. Fix: "
    )
    assert code == 2 and message in err and "ACDC.zip" not in err
    assert not (tmp_path / "acdc/images").exists()


SLICE, VOLUME = "slices/patient099_frame01_slice_1.h5", "patient028_frame02.h5"


def slice_with(**arrays):
    return lambda data: write(data / SLICE, (6, 5), **arrays)


def image_as(store):
    """Store the image of a slice differently; `store` gets the file and the path of another."""

    def damage(data):
        with h5py.File(data / SLICE, "a") as file:
            del file["image"]
            store(file, str(data / "slices/patient038_frame01_slice_1.h5"))

    return damage


def without_names(name):
    """Damage the table of a file's arrays."""

    def damage(data):
        (data / name).write_bytes((data / name).read_bytes().replace(b"SNOD", b"none"))

    return damage


def flat(value):
    return np.full((6, 5), value, np.float32)


CONVERT = "slice_1.h5 cannot be converted"
# Damage, and part of the message.
FAULTS = [
    (slice_with(label=None), f"{CONVERT} (no key 'label', found image"),
    (slice_with(image="an image"), "'image' holds values of type object, expected an array of num"),
    (slice_with(image=np.zeros((6, 5), complex)), "'image' holds values of type complex128"),
    (slice_with(image=np.zeros((6, 5, 3))), "'image' is an array of shape (6, 5, 3), expected an "
     "array of numbers, height x"),
    (slice_with(image=np.zeros((0, 5))), "'image' is an array of shape (0, 5), expected an array"),
    (slice_with(image=flat(1.5)), "values beyond [0, 1]"),
    (slice_with(image=flat(-0.5)), "values beyond [0, 1]"),
    (slice_with(image=flat(np.nan)), "values beyond [0, 1]"),
    *((slice_with(label=flat(value)), f"label {value}, expected a whole number, 0 to 3")
      for value in (4, -1, 1.5, np.nan)),
    (image_as(lambda file, _: file.create_group("image")),
     "'image' is a group, expected an array of numbers, height x width"),
    (image_as(lambda file, other: file.update(image=h5py.ExternalLink(other, "/image"))),
     "'image' is a link, expected an array"),
    (image_as(lambda f, other: f.create_dataset("image", (6, 5), "u1", external=[(other, 0, 30)])),
     "'image' is kept in another file"),
    (image_as(lambda f, _: f.create_dataset("image", (2**16, 2**16), "u1", chunks=(512, 512))),
     "'image' holds 4294967296 bytes (at most 268435456), expected"),
    (lambda data: (data / SLICE).write_bytes(b"\x89HDF"), CONVERT),
    (without_names(SLICE), CONVERT),
    (without_names(VOLUME), "frame02.h5 is not a volume"),
    (lambda data: write(data / VOLUME, (3, 4, 7), label=np.zeros((3, 4, 6), np.uint8)),
     "an image of shape (3, 4, 7), a label of (3, 4, 6)"),
    (lambda data: write(data / VOLUME, (4, 7)),
     "frame02.h5 is not a volume ('image' is an array of shape (4, 7), expected"),
    (lambda data: (data / VOLUME).write_bytes(b"\x89HDF"), "frame02.h5 is not a volume"),
]  # fmt: skip


@pytest.mark.parametrize("damage, message", FAULTS)
def test_faulty_files_are_named_in_one_line(damage, message, run, source, tmp_path):
    damage(source)
    assert message in prepared(run, source, tmp_path / "acdc", "--partial").mistake()


def test_h5py_is_optional(run, source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    err = prepared(run, source, tmp_path / "acdc", "--partial").mistake()
    assert err == "error: acdc needs h5py. Fix: pip install -r requirements-extra.txt\n"


needs_data = pytest.mark.skipif(
    not SHARED.is_dir(), reason="needs ACDC; the variable ACDC names it"
)


@needs_data
def test_the_names_of_all_files_give_the_published_lists():
    def stems(name):
        return [Path(line.split()[0]).stem for line in (SHARED / name).read_text().splitlines()]

    train = stems("lists/7/labeled.txt") + stems("lists/7/unlabeled.txt")
    lists, faults = acdc._lists(train, stems("lists/valtest.txt"))
    assert len(lists) == 9 and not faults
    for name, lines in lists.items():
        assert sorted(lines) == sorted((SHARED / name).read_text().splitlines()), name
    for partition, counts in LISTS.items():
        kinds = ("labeled", "unlabeled")
        assert counts == tuple(len(lists[f"lists/{partition}/{kind}.txt"]) for kind in kinds)


@needs_data
@pytest.mark.skipif(not SHARED.with_name("acdc_h5").is_dir(), reason="needs some of its HDF5 files")
def test_real_files_become_the_same_pictures(run, tmp_path):
    source = SHARED.with_name("acdc_h5")
    run(prepare, "acdc", "--source", source, "--root", tmp_path, "--partial").output()
    made = list(tmp_path.rglob("*.png"))
    assert len(made) == 2 * (6 + 20)
    for path in made:
        same = SHARED / path.relative_to(tmp_path)
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(same))), path.name


def test_published_settings():
    honest, published = (
        load_config(REPOSITORY / f"configs/acdc_unimatch{end}.yaml") for end in ("", "_published")
    )
    for config in (honest, published):
        model, optimizer = config.model, config.optimizer
        assert (model.network, model.widths) == ("unet", (16, 32, 64, 128, 256))
        assert model.dropout == (0.05, 0.1, 0.2, 0.3, 0.5)
        assert (optimizer.lr, optimizer.lr_multi, optimizer.momentum) == (0.01, 1, 0.9)
        assert (optimizer.weight_decay, optimizer.power) == (1e-4, 0.9)
        assert (config.crop_size, config.epochs, config.batch_size) == (256, 300, 12)
        assert (config.conf_thresh, config.cutmix_partner) == (0.95, "other")
        assert (config.criterion.name, config.evaluation.mode) == ("ce_dice", "resize")
        assert (config.data.bands, config.data.mean, config.data.std) == ("grey", (0,), (1,))
        assert config.evaluation.select == "dice"
    assert honest.data.val.name == "val.txt" and honest.data.test.name == "test.txt"
    assert published.data.val.name == "valtest.txt"
    apart = {"val"}
    assert honest.data.model_dump(exclude=apart) == published.data.model_dump(exclude=apart)


def test_samples_are_rotated_whole(toy):
    """Image and mask share a rotation; there is no padding, and masks hold no new values."""
    geometry = ["data.geometry=rotate_resize", "crop_size=24"]
    config = load_config(toy.config, geometry)
    lists = read_splits(config.data, unlabeled=True)
    room, process = (
        cache_bytes(lists, config.data),
        ProcessInfo(rank=0, world=1, workers=0, cuda=False),
    )
    assert len(loader := training_loader(config, lists, room, 2, 2, 1, process))
    for batch in loader:
        assert batch["labeled"]["image"].shape == (2, 24, 24, 3)
        assert set(batch["labeled"]["mask"].unique().tolist()) <= {0, 1, 2, 255}
        assert not batch["unlabeled"]["ignore"].any()
        # Each class of the toy's images is brighter by 80 grey levels than the class before.
        image, mask = batch["labeled"]["image"].float().mean(-1), batch["labeled"]["mask"]
        assert image[mask == 2].min() > image[mask == 0].float().quantile(0.5)
