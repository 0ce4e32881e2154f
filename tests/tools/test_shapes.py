"""The toy datasets: reproducible files that match their configs."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.mask_files import LabelLookup, open_mask
from dataset.validation import check_files, read_splits
from tools.make_shapes import __main__ as make_shapes
from tools.make_shapes.files import generate
from tools.make_shapes.scenes import CLASSES, IGNORE, PALETTE, render_pair, render_scene
from util.config.loading import load_config
from util.errors import UserError

FEW = {"labeled": 3, "unlabeled": 2, "val": 2, "progress": False}


def files(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("pairs", [False, True])
def test_generation_is_deterministic_and_never_mixes_datasets(pairs, tmp_path):
    generate(tmp_path / "a", **FEW, pairs=pairs)
    generate(tmp_path / "b", **FEW, pairs=pairs)
    a = files(tmp_path / "a")
    assert a == files(tmp_path / "b")
    generate(tmp_path / "c", **FEW, pairs=pairs, seed=1)
    first = Path("A" if pairs else "images", "train/00000.png")
    assert files(tmp_path / "c")[first] != a[first]
    with pytest.raises(UserError, match="holds something else. Fix: choose"):
        generate(tmp_path / "a", **FEW, pairs=not pairs)
    masked = [*(f"train/0000{i}.png" for i in range(3)), *(f"val/0000{i}.png" for i in range(2))]
    everything = sorted([*masked, "train/00003.png", "train/00004.png"])
    folders = {"images": everything, "masks": masked}
    if pairs:
        folders = {"A": everything, "B": everything, "label": masked, "kinds": masked}
        assert a[Path("unlabeled.txt")].decode().splitlines() == everything[3:5]
        masks = [np.asarray(Image.open(tmp_path / "a/label" / name)) for name in masked]
        assert set(np.unique(masks)) <= {0, 128, 255}
    for folder, names in folders.items():
        found = sorted(p.relative_to(folder).as_posix() for p in a if p.parts[0] == folder)
        assert found == names


def test_masks_hold_every_class_and_the_ignored_border():
    shares = np.zeros(256)
    for index in range(50):
        _, mask = render_scene(np.random.default_rng([0, 0, index]), 64)
        shares += np.bincount(mask.ravel(), minlength=256)
    shares /= shares.sum()
    present = np.flatnonzero(shares)
    assert present.tolist() == [*range(len(CLASSES)), 255]
    assert shares[1 : len(CLASSES)].min() > 0.02 and 0.02 < shares[255] < 0.2


def test_colour_tells_nothing_of_the_class():
    colours = {c: [] for c in range(1, len(CLASSES))}
    for index in range(100):
        image, mask = render_scene(np.random.default_rng([1, 0, index]), 64)
        for c in colours:
            if (mask == c).sum() > 20:
                colours[c].append(image[mask == c].mean(0))
    means = np.array([np.mean(v, axis=0) for v in colours.values()])
    errors = np.array([np.std(v, axis=0) / len(v) ** 0.5 for v in colours.values()])
    z = (means - means.mean(0)) / errors
    assert np.abs(z).max() < 4


@pytest.mark.parametrize("name, place", [("shapes", 0), ("shapes_pairs", 0), ("shapes_changes", 1)])
def test_files_are_what_the_loader_reads(name, place, tmp_path):
    """Compare files with rendered scenes; `place`: position of the mask in the result."""
    is_pair, root = name != "shapes", tmp_path / "data"
    generate(root, **FEW, pairs=is_pair)
    lists = [f"data.{kind}={root}/{kind}.txt" for kind in ("labeled", "unlabeled", "val")]
    config = load_config(f"configs/{name}.yaml", [f"data.root={root}", *lists])
    if not is_pair:
        assert tuple(config.data.classes) == CLASSES and tuple(config.data.palette) == PALETTE
    found = read_splits(config.data, unlabeled=True)
    check_files(config.data, *found)  # some scenes lack a class
    for index, sample in enumerate(found.labeled.samples):
        rng = np.random.default_rng([0, 0, index])
        rendered = render_pair(rng, 64) if is_pair else render_scene(rng, 64)
        images, masks = rendered[: 1 + is_pair], rendered[1 + is_pair :]
        stored = [np.asarray(Image.open(file)) for file in sample.image_files]
        np.testing.assert_array_equal(stored, images)
        read = open_mask(sample.mask_file, LabelLookup(config.data))
        np.testing.assert_array_equal(np.array(read), masks[place])


@pytest.mark.parametrize("name", ["shapes", "quickstart"])
def test_masks_have_the_palette_of_the_config(name, tmp_path):
    generate(tmp_path / "data", **FEW, simple=name == "quickstart")
    data = load_config(f"configs/{name}.yaml").data
    entries = Image.open(tmp_path / "data/masks/train/00000.png").getpalette()
    for index, colour in enumerate(data.palette):
        assert tuple(entries[3 * index : 3 * index + 3]) == tuple(colour)
    assert set(entries[3 * len(data.palette) :]) == {224}


def test_labelled_changes_differ_more_than_the_rest():
    """The dates differ everywhere in light, noise and clutter, but more at labelled changes."""
    shares, gaps = np.zeros(256), {0: [], 1: []}
    for index in range(30):
        first, second, changed, _ = render_pair(np.random.default_rng([0, 0, index]), 64)
        shares += np.bincount(changed.ravel(), minlength=256)
        gap = np.abs(first.astype(float) - second).mean(-1)
        for value, found in gaps.items():
            if (changed == value).any():
                found.append(gap[changed == value].mean())
    shares /= shares.sum()
    assert np.flatnonzero(shares).tolist() == [0, 1, IGNORE]
    assert 0.03 < shares[1] < 0.4 and shares[IGNORE] < 0.2
    assert min(gaps[0]) > 0 and np.mean(gaps[1]) > 1.5 * np.mean(gaps[0])


class OneFate:
    """A generator that gives every figure the same fate."""

    def __init__(self, fate, seed):
        self.fate, self.rng = fate, np.random.default_rng(seed)

    def __getattr__(self, name):
        return getattr(self.rng, name)

    def choice(self, options, *args, **kwargs):
        return self.fate if "stays" in options else self.rng.choice(options, *args, **kwargs)


@pytest.mark.parametrize("fate, found", [
    ("stays", set()), ("came", {1}), ("went", {1}), ("became another", {1, 2}),
])  # fmt: skip
def test_the_kind_of_change_follows_from_the_fate_of_the_figures(fate, found):
    """Label no change where no shape appears, vanishes or changes class, despite clutter."""
    for index in range(5):
        first, second, changed, kinds = render_pair(OneFate(fate, index), 64)
        assert (first != second).mean() > 0.5
        assert set(np.unique(kinds)) - {0, IGNORE} == found
        assert set(np.unique(changed)) - {0, IGNORE} == ({1} if found else set())
        both = (kinds != IGNORE) & (changed != IGNORE)
        assert ((kinds > 0) == (changed > 0))[both].all()


def test_the_command_tells_what_is_in_the_folder(tmp_path, run):
    argv = ["--root", tmp_path / "a", "--labeled", 2, "--unlabeled", 1, "--val", 1]
    expected = f"dataset  {tmp_path / 'a'}: 2 labelled, 1 unlabelled, 1 validation images\n"
    assert run(make_shapes, *argv).output() == expected


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
    with pytest.raises(UserError, match="mine.png/x: cannot be written"):
        generate(root / "mine.png/x", **FEW)
    with pytest.raises(UserError, match="unlabeled is 0"):
        generate(tmp_path / "none", **FEW | {"unlabeled": 0})
