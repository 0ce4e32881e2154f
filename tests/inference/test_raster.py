"""TIFFs that are predicted by windows: what is read, blended, written, and survives a kill."""

import csv
import importlib
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import predict
from dataset.bands import read_bands
from inference import blending, geotiff
from inference.blending import Axis, plan, predict_block
from inference.predictor import logits_of
from inference.raster import Raster, Rect, open_raster
from supervised import SupOnly
from tests.own_images import TINY
from tools.make_shapes.files import generate
from util.colours import IGNORE_COLOUR, palette
from util.config.data import Data
from util.config.loading import load_config
from util.errors import UserError

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
PLACE = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.5, 0, 400000, 0, -0.5, 5800000)}
RNG = np.random.default_rng(0)


def data(**keys):
    return Data(name="d", root=".", classes=["a", "b"], val="v", **keys)


def write_raster(path, values, **how):
    """Values `[N, H, W]` as a GeoTIFF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype,
        **PLACE | how,
    ) as file:  # fmt: skip
        file.write(values)


def scene(height=300, width=420):
    """Bands of colour with noise, `[3, H, W]`."""
    rows = (np.arange(height) // 50 % 3 * 80)[None, :, None]
    return (rows + RNG.integers(0, 60, (3, height, width))).astype(np.uint8)


class Convolutions(nn.Module):
    """Sees two pixels in each direction."""

    def __init__(self, classes, bands=3):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(bands, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, classes, 3, padding=1)
        )

    def forward(self, x):
        return 5 * self.layers(x)


@pytest.mark.parametrize("size, window", [(100, 33), (33, 33), (10, 33), (55, 9), (7, 1), (34, 33)])
def test_weights_sum_to_one(size, window):
    axis, total = Axis(size, window), np.zeros(size)
    for start, weight in zip(axis.starts, axis.weights, strict=True):
        assert weight.min() >= 0 and len(weight) == axis.window
        total[start : start + axis.window] += weight
    np.testing.assert_allclose(total, 1)
    assert [start for start, _ in axis.reaching(0, size)] == axis.starts


@pytest.mark.parametrize("size, steepest", [(99 + 6 * 66, 1 / 17), (500, 2 / 17)])
def test_weights_begin_and_end_at_nothing(size, steepest):
    """A window of 99 pixels rises within 17; twice as steep where the last one is shifted back."""
    axis = Axis(size, 99)
    for start, weight in zip(axis.starts, axis.weights, strict=True):
        whole = np.zeros(size)
        whole[start : start + 99] = weight
        assert abs(np.diff(whole)).max() <= steepest + 1e-9
        assert start == 0 or (weight[:8] == 0).all()


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 64 pixels."""
    monkeypatch.setattr(blending, "TILE", 64)
    monkeypatch.setattr(blending, "BLOCK_BYTES", 64 * 64 * 4 * 3)


@pytest.mark.parametrize("sets", [[], ["evaluation.flip=true"]])
def test_windows_see_what_the_whole_image_shows(sets, small_blocks, toy, tmp_path):
    """A network that sees less far than the margin of a window cannot tell them apart."""
    write_raster(tmp_path / "a.tif", scene(150, 130))
    config = load_config(toy.config, ["crop_size=45", *sets])
    network, cpu = Convolutions(3).eval(), torch.device("cpu")
    mean, std = (torch.tensor(v)[:, None, None] for v in (config.data.mean, config.data.std))
    with open_raster(tmp_path / "a.tif", config.data) as raster:
        whole = raster.read(Rect(0, 0, 150, 130))
        assert np.array_equal(whole, read_bands(tmp_path / "a.tif", config.data))
        x = (torch.from_numpy(whole).permute(2, 0, 1)[None] / 255 - mean) / std
        with torch.no_grad():
            expected = logits_of(network, x).softmax(1)[0]
            if sets:
                expected = (expected + logits_of(network, x.flip(-1)).softmax(1)[0].flip(-1)) / 2
        planned, seen = plan(150, 130, 45, 3), []
        assert len(planned.blocks) == 9
        found = torch.zeros(3, 150, 130)
        for block in planned.blocks:
            part = predict_block(network, raster, block, planned, config, cpu, seen.append)
            rows, columns = block.within(Rect(0, 0, 150, 130))
            found[:, rows, columns] = part
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert sum(seen) == sum(len(planned.windows(block)) for block in planned.blocks)


class Position(nn.Module):
    """Logits that rise and fall across a window, whatever it shows: the worst of all seams."""

    def forward(self, x):
        ramp = torch.linspace(-2, 2, x.shape[-1]) + torch.linspace(-2, 2, x.shape[-2])[:, None]
        ramp = ramp.expand(len(x), 1, *x.shape[-2:])
        return torch.cat([ramp, -ramp, 0 * ramp], 1)


def test_no_seam(small_blocks, toy, tmp_path):
    """Neighbouring pixels differ by no more than a ramp explains, at blocks' borders too; summed
    without weights they jump."""
    write_raster(tmp_path / "a.tif", scene(150, 130))
    config = load_config(toy.config, ["crop_size=45"])
    planned, found = plan(150, 130, 45, 3), torch.zeros(3, 150, 130)
    with open_raster(tmp_path / "a.tif", config.data) as raster:
        for block in planned.blocks:
            rows, columns = block.within(Rect(0, 0, 150, 130))
            found[:, rows, columns] = predict_block(
                Position(), raster, block, planned, config, torch.device("cpu"), lambda _: None
            )
    inside = Position()(torch.zeros(1, 3, 45, 45)).softmax(1)
    own = max(inside.diff(dim=d).abs().max() for d in (2, 3))
    largest = max(found.diff(dim=d).abs().max() for d in (1, 2))
    assert largest <= own + 1 / 9  # of the ramp's 9 pixels
    jump = (inside[..., 44, 22] - inside[..., 14, 22]).abs().max() / 2
    assert jump > 2 * largest


FORMS = {
    "grey": ((1, np.uint8), {}, {}),
    "palette": ((1, np.uint8), {}, {}),
    "rgba": ((4, np.uint8), {"photometric": "rgb", "alpha": "yes"}, {}),
    "one band": ((1, np.uint8), {}, {"bands": "grey"}),
    "16 bits": ((5, np.uint16), {}, {"bands": [4, 1, 2], "image_range": [0, 60000]}),
    "floats": ((2, np.float32), {}, {"bands": [2], "image_range": [0, 255]}),
    "tiles": ((3, np.uint8), {"tiled": True, "blockxsize": 64, "blockysize": 32}, {}),
    "planes": ((3, np.uint8), {"interleave": "band", "compress": "lzw"}, {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_window_holds_what_the_whole_image_does(form, tmp_path):
    (count, kind), how, keys = FORMS[form]
    path, own = tmp_path / "a.tif", data(**keys)
    values = RNG.integers(0, 256, (count, 90, 70)).astype(kind)
    if form == "rgba":
        values[3] = 255
    write_raster(path, values, **how)
    if form == "palette":
        with rasterio.open(path, "r+") as file:
            file.write_colormap(1, {i: (i, 255 - i, i // 2) for i in range(256)})
    whole = read_bands(path, own)
    with open_raster(path, own) as raster:
        found = raster.read(Rect(20, 30, 50, 40))
    assert found.dtype == whole.dtype and np.array_equal(found, whole[20:70, 30:70])


REFUSED = {
    "white is 0": ((1, np.uint8), {"photometric": "miniswhite"}, {}, "has white as 0"),
    "1 bit": ((1, np.uint8), {"nbits": 1}, {}, "has 1 bits a pixel"),
    "no such band": ((3, np.uint8), {}, {"bands": [1, 7]}, "there is no band 7"),
    "two bands": ((2, np.uint8), {}, {}, "the image has 2 bands, but data.bands is rgb"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_what_is_not_read_by_windows(form, tmp_path):
    (count, kind), how, keys, said = REFUSED[form]
    write_raster(tmp_path / "a.tif", np.zeros((count, 9, 8), kind), **how)
    with pytest.raises(UserError, match=said), open_raster(tmp_path / "a.tif", data(**keys)):
        pass


def test_what_holds_no_data_is_0(tmp_path):
    values = RNG.integers(1, 256, (3, 9, 8)).astype(np.float32)
    values[:, :4] = np.nan
    write_raster(tmp_path / "a.tif", values, nodata=np.nan)
    with open_raster(tmp_path / "a.tif", data(image_range=[0, 255])) as raster:
        found = raster.read(Rect(0, 0, 9, 8))
        assert (found[:4] == 0).all() and (found[4:] > 0).all()
        assert raster.valid(Rect(2, 0, 4, 1)).ravel().tolist() == [False, False, True, True]
    values[0, 8, 0] = np.nan  # of one band alone
    write_raster(tmp_path / "a.tif", values, nodata=np.nan)
    with open_raster(tmp_path / "a.tif", data(image_range=[0, 255])) as raster:
        with pytest.raises(UserError, match="1 values are NaN"):
            raster.read(Rect(5, 0, 4, 4))


@pytest.fixture
def command(toy, train, run, tmp_path):
    """Predicts rasters/ with a trained network."""
    train(SupOnly, toy.argv(tmp_path / "run", "--set", *TINY))

    def predicted(*more):
        argv = ["--checkpoint", tmp_path / "run/best.pth", "--images", tmp_path / "rasters",
                "--save-path", tmp_path / "out", *more]  # fmt: skip
        return run(predict, *argv)

    return predicted


def test_what_predict_leaves_of_a_raster(command, toy, tmp_path):
    values = scene()
    values[:, :40] = 0
    write_raster(tmp_path / "rasters/a.tif", values, nodata=0)
    Image.new("RGB", (50, 40)).save(tmp_path / "rasters/b.png")
    code, said, _ = command("--geotiff", "--confidence", "entropy")
    out = tmp_path / "out"
    assert code == 0 and "written  2 masks" in said
    assert {p.relative_to(out).as_posix() for p in out.rglob("*.*")} == {
        "masks/a.tif", "masks/a.tif.aux.xml", "entropy/a.tif", "overlays/a.jpg", "areas.csv",
        "masks/b.png", "entropy/b.png", "overlays/b.jpg", "made_by.json",
    }  # fmt: skip
    own = load_config(toy.config).data
    with rasterio.open(out / "masks/a.tif") as file, rasterio.open(out / "entropy/a.tif") as sure:
        for one in (file, sure):
            assert one.crs.to_epsg() == 32633 and one.transform == PLACE["transform"]
            assert (
                one.shape == (300, 420)
                and one.block_shapes == [(512, 512)]
                and one.compression.name == "deflate"
            )
        mask = file.read(1)
        assert file.nodata == 255 and (mask[:40] == 255).all() and mask[40:].max() < 3
        assert [file.colormap(1)[i][:3] for i in (0, 1, 2, 255)] == [*palette(own), IGNORE_COLOUR]
        assert file.tags(1)["class_1"] == "tree"
        assert sure.nodata is None and (sure.read(1)[:40] == 255).all()
    importlib.import_module("rasterio.shutil").copy(
        out / "masks/a.tif", tmp_path / "a.vrt", driver="VRT"
    )
    assert "<Category>tree</Category>" in (tmp_path / "a.vrt").read_text()
    with (out / "areas.csv").open(newline="") as file:
        line = next(line for line in csv.DictReader(file) if line["image"] == "a")
    assert [int(line[c]) for c in own.classes] == np.bincount(mask.ravel(), minlength=256)[
        :3
    ].tolist()
    code, said, _ = command("--geotiff", "--confidence", "entropy")
    assert code == 0 and "skipped  2 images with masks already" in said


@pytest.fixture
def pairs(toy, train, run, tmp_path):
    """Predicts a.tif of the folders earlier/ and later/ with a network of pairs."""
    generate(tmp_path / "data", labeled=3, unlabeled=1, val=1, size=40, pairs=True, progress=False)
    toy.use_pairs(tmp_path / "data")
    train(SupOnly, toy.argv(tmp_path / "run", "--set", *TINY))

    def predicted(out, *more):
        code, said, err = run(
            predict, "--checkpoint", tmp_path / "run/best.pth", "--images", tmp_path / "earlier",
            "--second", tmp_path / "later", "--save-path", tmp_path / out, *more,
        )  # fmt: skip
        return code, said + err

    return predicted


def test_rasters_of_pairs(pairs, toy, tmp_path):
    """Predict single-window pairs as without windows; pixels need data at both dates."""
    side = load_config(toy.config).crop_size
    earlier, later = np.maximum(1, scene(side, side)), np.maximum(1, scene(side, side))
    write_raster(tmp_path / "earlier/a.tif", earlier)
    write_raster(tmp_path / "later/a.tif", later)
    assert pairs("plain", "--set", "evaluation.mode=original")[0] == 0
    assert pairs("windows", "--geotiff", "--confidence")[0] == 0
    mask = np.array(Image.open(tmp_path / "plain/masks/a.png"))
    with rasterio.open(tmp_path / "windows/masks/a.tif") as file:
        assert (file.read(1) == mask).all() and file.transform == PLACE["transform"]
    assert Image.open(tmp_path / "windows/overlays/a.jpg").width >= 2 * side

    earlier[:, :4], later[:, -3:] = 0, 0
    write_raster(tmp_path / "earlier/a.tif", earlier, nodata=0)
    write_raster(tmp_path / "later/a.tif", later, nodata=0)
    assert pairs("holes", "--geotiff", "--confidence")[0] == 0
    with rasterio.open(tmp_path / "holes/masks/a.tif") as file:
        rows = (file.read(1) == 255).all(1)
    with rasterio.open(tmp_path / "holes/confidence/a.tif") as sure:
        assert sure.nodata == 0 and ((sure.read(1) == 0) == rows[:, None]).all()
    assert rows.nonzero()[0].tolist() == [0, 1, 2, 3, side - 3, side - 2, side - 1]


@pytest.mark.parametrize(("how", "message"), [
    ({"transform": rasterio.Affine(0.5, 0, 400001, 0, -0.5, 5800000)}, ": 2.0 pixels off "),
    ({"transform": rasterio.Affine(0.6, 0, 400000, 0, -0.6, 5800000)}, " pixels off "),
    ({"crs": "EPSG:32632"}, "another coordinate system than "),
    ({}, "the later image is 41x40, the earlier one"),
])  # fmt: skip
def test_rasters_of_other_places_are_no_pair(how, message, pairs, tmp_path):
    write_raster(tmp_path / "earlier/a.tif", scene(40, 40))
    write_raster(tmp_path / "later/a.tif", scene(40, 40 if how else 41), **how)
    code, said = pairs("out", "--geotiff")
    assert code == 1 and message in said and "later/a.tif: " in said
    bare = tmp_path / "later/a.tif"
    bare.unlink()
    write_raster(bare, scene(40, 40), crs=None, transform=rasterio.Affine.identity())
    assert pairs("bare", "--geotiff")[0] == 0


def test_a_damaged_tile_is_told_and_the_others_are_predicted(command, tmp_path):
    values = RNG.integers(1, 256, (3, 96, 128), dtype=np.uint8)
    for name in ("a", "b"):
        write_raster(tmp_path / f"rasters/{name}.tif", values, nodata=0, compress="deflate")
    damaged = tmp_path / "rasters/a.tif"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
    damaged.write_bytes(content)
    code, said, err = command("--geotiff")
    assert code == 1 and f"{damaged}: not a readable image" in said and not err
    assert (tmp_path / "out/masks/b.tif").exists()


def test_small_tiffs_are_predicted_as_ever(command, tmp_path):
    write_raster(tmp_path / "rasters/a.tif", scene(60, 50))
    assert command()[0] == 0 and (tmp_path / "out/masks/a.png").exists()
    code, _, _ = command("--set", "data.max_megapixels=1", "--save-path", tmp_path / "more")
    assert code == 0 and (tmp_path / "more/masks/a.png").exists()
    write_raster(tmp_path / "rasters/b.tif", np.zeros((3, 1000, 1001), np.uint8), nodata=0)
    code, _, _ = command("--set", "data.max_megapixels=1", "--save-path", tmp_path / "large")
    assert code == 0 and (tmp_path / "large/masks/a.png").exists()
    with rasterio.open(tmp_path / "large/masks/b.tif") as file:
        assert (file.read() == 255).all()


@pytest.mark.parametrize("label_map, kind, bands, values", [
    ({10: "sky", 20: "tree", 30: "road"}, "uint8", 1, [10, 20, 30, 255]),
    ({10: "sky", 20: "tree", 300: "road", 7: "ignore"}, "uint16", 1, [10, 20, 300, 7]),
    ({"1,0,0": "sky", "2,0,0": "tree", "3,0,0": "road"}, "uint8", 3, [1, 2, 3, 224]),
])  # fmt: skip
def test_values_of_the_dataset(label_map, kind, bands, values, command, tmp_path, monkeypatch):
    image = scene(60, 50)
    image[:, :5] = 0
    write_raster(tmp_path / "rasters/a.tif", image, nodata=0)
    scores = torch.rand(3, 60, 50, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(geotiff, "predict_block", lambda *_: scores)
    more = ["--geotiff", "--set", f"data.label_map={label_map}", "--overlays", "none"]
    assert command(*more)[0] == command(*more, "--values", "--save-path", tmp_path / "own")[0] == 0
    with rasterio.open(tmp_path / "own/masks/a.tif") as file:
        found = file.read()
        assert file.dtypes[0] == kind and len(found) == bands
    with rasterio.open(tmp_path / "out/masks/a.tif") as file:
        classes = file.read(1)
    assert (classes[:5] == 255).all() and set(np.unique(classes[5:])) == {0, 1, 2}
    assert np.array_equal(found[0], np.choose(np.minimum(classes, 3), values))


def test_what_windows_cannot_give(command, tmp_path, monkeypatch):
    write_raster(tmp_path / "rasters/a.tif", scene(60, 50))
    code, said, _ = command("--geotiff", "--probabilities")
    assert code == 1 and "--probabilities needs too much memory" in said
    code, said, _ = command("--geotiff", "--set", "evaluation.mode=resize", "--save-path",
                            tmp_path / "b")  # fmt: skip
    assert code == 1 and "evaluation.mode resize needs whole images" in said
    monkeypatch.setitem(sys.modules, "rasterio", None)
    code, said, _ = command("--geotiff", "--save-path", tmp_path / "c")
    assert code == 1 and "needs rasterio: pip install -r requirements-extra.txt" in said


def test_killed_it_goes_on_and_writes_the_same(command, small_blocks, tmp_path, monkeypatch):
    write_raster(tmp_path / "rasters/a.tif", scene())
    assert command("--geotiff", "--confidence", "--save-path", tmp_path / "whole")[0] == 0
    predicted, blocks = geotiff.predict_block, []

    def dying(network, image, block, *more):
        blocks.append(block)
        if len(blocks) == 8:
            raise KeyboardInterrupt
        return predicted(network, image, block, *more)

    monkeypatch.setattr(geotiff, "predict_block", dying)
    assert command("--geotiff", "--confidence")[0] == 130
    assert not (tmp_path / "out/masks/a.tif").exists()
    assert command("--geotiff", "--confidence")[0] == 0
    assert len(blocks) == len(set(blocks)) + 1 == 5 * 7 + 1  # the one it died at twice
    for file in ("masks/a.tif", "confidence/a.tif", "overlays/a.jpg", "areas.csv"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert not (tmp_path / "out/masks/a.parts").exists()


def test_no_more_is_read_than_a_window_or_a_block(command, small_blocks, tmp_path, monkeypatch):
    """Memory stays that of a block, however large the image is."""
    values, sizes = scene(), {"_values": set(), "valid": set()}
    values[:, :40] = 0
    write_raster(tmp_path / "rasters/a.tif", values, nodata=0)

    def record(name, method):
        def recorded(*given):
            found = method(*given)
            sizes[name].add(found.shape[:2])
            return found

        monkeypatch.setattr(Raster, name, recorded)

    for name in sizes:
        record(name, getattr(Raster, name))
    monkeypatch.setattr(geotiff, "PREVIEW", 50)
    assert command("--geotiff", "--confidence")[0] == 0
    crop = load_config(tmp_path / "run/config.yaml").crop_size
    windows, blocks, preview = (
        {(crop, crop)},
        {(h, w) for h in (64, 44) for w in (64, 36)},
        (34, 47),
    )
    assert sizes["_values"] == windows | {preview} and sizes["valid"] == windows | blocks


def test_parts_of_another_file_are_refused(command, small_blocks, tmp_path, monkeypatch):
    write_raster(tmp_path / "rasters/a.tif", scene())
    monkeypatch.setattr(geotiff, "write_all", lambda *_: sys.exit(9))
    assert command("--geotiff")[0] == 9
    monkeypatch.undo()
    write_raster(tmp_path / "rasters/a.tif", scene())
    code, said, _ = command("--geotiff")
    assert code == 1 and "a.parts: begun before" in said and "changed; remove this folder" in said
