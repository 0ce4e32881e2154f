"""TIFFs predicted in windows: reading, blending, writing, continuing after a kill."""

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
from inference import geotiff
from inference.predictor import Predictor, logits_of, predict_sliding
from inference.raster import Raster, Rect, open_sample
from tests import own_images
from tests.bands import data
from util.colours import IGNORE_COLOUR, palette
from util.config.loading import load_config
from util.errors import UserError

pytest.importorskip("tifffile")
rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
PLACE = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.5, 0, 400000, 0, -0.5, 5800000)}
RNG = np.random.default_rng(0)


def write_raster(path, values, **how):
    own_images.write_raster(path, values, **PLACE | how)


def scene(height=300, width=420):
    """Return stripes of colour with noise, `[3, H, W]`."""
    rows = (np.arange(height) // 50 % 3 * 80)[None, :, None]
    return (rows + RNG.integers(0, 60, (3, height, width))).astype(np.uint8)


class Convolutions(nn.Module):
    """A network with a receptive field of two pixels in each direction."""

    def __init__(self, classes, bands=3):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(bands, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, classes, 3, padding=1)
        )

    def forward(self, x):
        return 5 * self.layers(x)


@pytest.fixture
def small_blocks(monkeypatch):
    """Limit blocks to 64 pixels."""
    monkeypatch.setattr(geotiff, "TILE", 64)
    monkeypatch.setattr(geotiff, "BLOCK_BYTES", 64 * 64 * 4 * 3)


def predict_blocks(network, path, config):
    """Return the probabilities of a whole raster, and the number of its blocks."""
    predictor = Predictor(network, config, torch.device("cpu"), "original")
    with open_sample([path], config.data) as dates:
        blocks, found = geotiff.divide(dates, 3), torch.zeros(3, dates.height, dates.width)
        for block in blocks:
            rows, columns = block.within(Rect(0, 0, dates.height, dates.width))
            found[:, rows, columns], _ = geotiff.predict_block(
                predictor,
                dates,
                block,
                *geotiff.window_corners(dates, block, config.crop_size),
                print,
            )
    return found, len(blocks)


def test_windows_predict_the_same_as_the_whole_image(small_blocks, toy, tmp_path):
    """Use a network whose receptive field is smaller than the margin of a window."""
    path, network = tmp_path / "a.tif", Convolutions(3).eval()
    write_raster(path, scene(150, 130))
    config = load_config(toy.config, ["crop_size=45", "evaluation.flip=true"])
    mean, std = (torch.tensor(v)[:, None, None] for v in (config.data.mean, config.data.std))
    whole = torch.from_numpy(np.array(read_bands(path, config.data)[0]))
    x = (whole.permute(2, 0, 1)[None] / 255 - mean) / std
    with torch.no_grad():
        expected = logits_of(network, x).softmax(1)[0]
        expected = (expected + logits_of(network, x.flip(-1)).softmax(1)[0].flip(-1)) / 2
    found, blocks = predict_blocks(network, path, config)
    assert blocks == 9
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    with pytest.raises(UserError, match=r"a\.tif: the network's outputs are not finite"):
        predict_blocks(lambda x: network(x) / 0, path, config)


class Averaging(Convolutions):
    """A network whose outputs at all pixels depend on the whole window."""

    def forward(self, x):
        return super().forward(x) + 20 * self.layers(x).mean((2, 3), keepdim=True)


@pytest.mark.parametrize("size", [(150, 130), (129, 190), (40, 200), (64, 65)])
def test_no_border_of_a_block_or_window_is_visible(size, small_blocks, toy, tmp_path, monkeypatch):
    """Blocks predict the same as one block; a window begins and ends without a step."""
    path, network = tmp_path / "a.tif", Averaging(3).eval()
    rows = np.linspace(0, 255, size[0]).astype(np.uint8)[None, :, None]
    write_raster(path, np.broadcast_to(rows, (3, *size)))
    config = load_config(toy.config, ["crop_size=45", "evaluation.scales=[1, 1.5]"])
    found, blocks = predict_blocks(network, path, config)
    monkeypatch.setattr(geotiff, "TILE", 256)
    whole, one = predict_blocks(network, path, config)
    assert blocks > one == 1
    torch.testing.assert_close(found, whole, atol=1e-6, rtol=0)
    inside = whole[:, 4:-4]  # without the effect of zero padding at the image's border
    assert inside.diff(dim=1).abs().max() < 0.05


@pytest.mark.parametrize("size", [513, 533, 690, 875, 915, 1197])
def test_windows_fade_into_each_other(size):
    """No step where windows that differ overlap, also close to the image's border."""
    number = iter(range(100))

    def alternate(windows):
        odd = torch.tensor([next(number) % 2 for _ in windows])[:, None, None, None]
        return torch.cat([odd, 1 - odd], 1).expand(-1, -1, *windows.shape[2:]).float()

    image = torch.zeros(1, 3, 8, size)
    found = predict_sliding(alternate, image, 513, "shift", batch=4, fade=True)
    assert found.diff(dim=-1).abs().max() < 0.03


def test_windows_without_data_are_not_predicted(toy, tmp_path):
    path, seen = tmp_path / "a.tif", []
    image = np.zeros((3, 300, 300), np.uint8)
    image[:, 10:40, 10:40] = 100
    write_raster(path, image, nodata=0)

    def network(x):
        seen.append(len(x))
        return torch.zeros(len(x), 3, *x.shape[2:])

    predict_blocks(network, path, load_config(toy.config, ["crop_size=45"]))
    assert 0 < sum(seen) <= 4


FORMS = {
    "grey": ((1, np.uint8), {}, {}),
    "palette": ((1, np.uint8), {}, {}),
    "rgba": ((4, np.uint8), {"photometric": "rgb", "alpha": "yes"}, {}),
    "alpha as data": (
        (4, np.uint8),
        {"photometric": "rgb", "alpha": "yes"},
        {"bands": [1, 2, 3, 4]},
    ),
    "near infrared": (
        (4, np.uint8),
        {"photometric": "rgb", "alpha": "unspecified", "nodata": 0},
        {"bands": [4, 1, 2]},
    ),
    "nodata and mask": ((1, np.uint8), {"nodata": 0}, {}),
    "one band": ((1, np.uint8), {}, {"bands": "grey"}),
    "16 bits": ((5, np.uint16), {}, {"bands": [4, 1, 2], "image_range": [0, 60000]}),
    "floats": ((2, np.float32), {}, {"bands": [2], "image_range": [0, 255]}),
    "tiles": ((3, np.uint8), {"tiled": True, "blockxsize": 64, "blockysize": 32}, {}),
    "planes": ((3, np.uint8), {"interleave": "band", "compress": "lzw"}, {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_window_is_a_part_of_the_whole_image(form, tmp_path):
    (count, kind), how, keys = FORMS[form]
    path, own = tmp_path / "a.tif", data(**keys)
    values = RNG.integers(0, 256, (count, 90, 70)).astype(kind)
    if form == "rgba":
        values[3] = 255
    if count == 4:
        values[:, 25:30], values[3, 30:40] = 0, 0
    if form == "nodata and mask":
        values[:, 25:30] = 0
    write_raster(path, values, **how)
    if form == "nodata and mask":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
            file.write_mask(np.arange(90 * 70).reshape(90, 70) % 3 > 0)
    if form == "palette":
        with rasterio.open(path, "r+") as file:
            file.write_colormap(1, {i: (i, 255 - i, i // 2) for i in range(256)})
    whole, nodata_mask = read_bands(path, own)
    with open_sample([path], own) as raster:
        found, empty = raster.read(rect := Rect(20, 30, 50, 40)), raster.nodata_mask(rect)
    assert found.dtype == whole.dtype and np.array_equal(found, whole[20:70, 30:70])
    assert (nodata_mask is None or nodata_mask.any()) and (empty is None) == (
        "nodata" not in how and form != "rgba"
    )
    assert empty is None or np.array_equal(empty, nodata_mask[20:70, 30:70])


@pytest.mark.parametrize("count, how, keys, message", [
    (1, {"photometric": "miniswhite"}, {}, "has white as 0"),
    (1, {"nbits": 1}, {}, "has 1 bits a pixel"),
    (3, {}, {"bands": [1, 7]}, "names band 7; expected at most 3"),
    (2, {}, {}, "the image has 2 bands, but data.bands is rgb"),
])  # fmt: skip
def test_kinds_of_tiff_that_are_refused(count, how, keys, message, tmp_path):
    write_raster(tmp_path / "a.tif", np.zeros((count, 9, 8), np.uint8), **how)
    with pytest.raises(UserError, match=message), open_sample([tmp_path / "a.tif"], data(**keys)):
        pass


def test_pixels_without_data_are_0(tmp_path):
    values = RNG.integers(1, 256, (3, 9, 8)).astype(np.float32)
    values[:, :4] = np.nan
    write_raster(tmp_path / "a.tif", values, nodata=np.nan)
    with open_sample([tmp_path / "a.tif"], data(image_range=[0, 255])) as raster:
        found = raster.read(Rect(0, 0, 9, 8))
        assert (found[:4] == 0).all() and (found[4:] > 0).all()
        assert raster.nodata_mask(Rect(2, 0, 4, 1)).ravel().tolist() == [True, True, False, False]
    values[0, 8, 0] = np.nan  # of one band alone
    write_raster(tmp_path / "a.tif", values, nodata=np.nan)
    with open_sample([tmp_path / "a.tif"], data(image_range=[0, 255])) as raster:
        with pytest.raises(UserError, match="NaN or infinity in 1 value"):
            raster.read(Rect(5, 0, 4, 4))


@pytest.fixture
def command(trained, run, tmp_path):
    """Predict rasters/ with a trained network."""

    def predicted(*more):
        argv = ["--checkpoint", trained, "--images", tmp_path / "rasters", "--save-path",
                tmp_path / "out", *more]  # fmt: skip
        return run(predict, *argv)

    return predicted


def test_files_of_a_raster(command, toy, tmp_path):
    values = scene()
    values[:, :40] = 0
    write_raster(tmp_path / "rasters/a.tif", values, nodata=0)
    Image.new("RGB", (50, 40)).save(tmp_path / "rasters/b.png")
    code, output, _ = command("--geotiff", "--confidence", "entropy")
    out = tmp_path / "out"
    assert code == 0 and "written  2 masks" in output
    assert {p.relative_to(out).as_posix() for p in out.rglob("*.*")} == {
        "masks/a.tif", "masks/a.tif.aux.xml", "entropy/a.tif", "overlays/a.jpg", "areas.csv",
        "masks/b.png", "entropy/b.png", "overlays/b.jpg", "made_by.json",
    }  # fmt: skip
    own = load_config(toy.config).data
    with rasterio.open(out / "masks/a.tif") as file, rasterio.open(out / "entropy/a.tif") as sure:
        for one in (file, sure):
            assert one.crs.to_epsg() == 32633 and one.transform == PLACE["transform"]
            assert one.shape == (300, 420) and one.block_shapes == [(512, 512)]
            assert one.compression.name == "deflate"
        mask = file.read(1)
        assert file.nodata == 255 and (mask[:40] == 255).all() and mask[40:].max() < 3
        assert [file.colormap(1)[i][:3] for i in (0, 1, 2, 255)] == [*palette(own), IGNORE_COLOUR]
        assert file.tags(1)["class_1"] == "tree"
        assert sure.nodata is None and (sure.read(1)[:40] == 255).all()
    copy = importlib.import_module("rasterio.shutil").copy
    copy(out / "masks/a.tif", tmp_path / "a.vrt", driver="VRT")
    assert "<Category>tree</Category>" in (tmp_path / "a.vrt").read_text()
    with (out / "areas.csv").open(newline="") as file:
        line = next(line for line in csv.DictReader(file) if line["image"] == "a")
    assert [int(line[c]) for c in own.classes] == [(mask == index).sum() for index in range(3)]
    output = command("--geotiff", "--confidence", "entropy").output()
    assert "skipped  2 images already predicted" in output


@pytest.fixture
def pairs(pair_run, run, tmp_path):
    """Predict a.tif of the folders earlier/ and later/ with a network of pairs."""

    def predicted(out, *more):
        code, output, err = run(
            predict, "--checkpoint", pair_run, "--images", tmp_path / "earlier",
            "--second", tmp_path / "later", "--save-path", tmp_path / out, *more,
        )  # fmt: skip
        return code, output + err

    return predicted


def test_rasters_of_pairs(pairs, pair_run, tmp_path):
    side = load_config(pair_run / "config.yaml").crop_size
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


def test_rasters_of_other_places_are_no_pair(pairs, tmp_path):
    """Refuse pairs of different places; skip rasters without coordinate system."""
    shifted = rasterio.Affine(0.5, 0, 400001, 0, -0.5, 5800000)
    larger = rasterio.Affine(0.6, 0, 400000, 0, -0.6, 5800000)
    write_raster(tmp_path / "earlier/a.tif", scene(40, 40))
    for number, (how, width, message) in enumerate((
        ({"transform": shifted}, 40, ": 2.0 pixels off "),
        ({"transform": larger}, 40, " pixels off "),
        ({"crs": "EPSG:32632"}, 40, "another coordinate system than "),
        ({}, 41, "the later image is 41x40, the earlier one"),
        ({"crs": None, "transform": rasterio.Affine.identity()}, 40, ""),
    )):  # fmt: skip
        (tmp_path / "later/a.tif").unlink(missing_ok=True)
        write_raster(tmp_path / "later/a.tif", scene(40, width), **how)
        code, output = pairs(f"out{number}", "--geotiff")
        assert code == bool(message) and message in output
        assert ("later/a.tif: " in output) == bool(message)


def test_a_damaged_tile_is_reported_and_the_others_are_predicted(command, tmp_path):
    values = RNG.integers(1, 256, (3, 96, 128), dtype=np.uint8)
    for name in ("a", "b"):
        write_raster(tmp_path / f"rasters/{name}.tif", values, nodata=0, compress="deflate")
    damaged = tmp_path / "rasters/a.tif"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
    damaged.write_bytes(content)
    code, _, err = command("--geotiff")
    assert code == 1 and f"{damaged}: not a readable image" in err
    assert (tmp_path / "out/masks/b.tif").exists()


def test_large_tiffs_become_geotiffs(command, tmp_path):
    write_raster(tmp_path / "rasters/a.tif", scene(60, 50))
    write_raster(tmp_path / "rasters/b.tif", np.zeros((3, 1000, 1001), np.uint8), nodata=0)
    command("--set", "data.max_megapixels=1", "crop_size=500").output()
    assert (tmp_path / "out/masks/a.png").exists()
    with rasterio.open(tmp_path / "out/masks/b.tif") as file:
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
    monkeypatch.setattr(
        geotiff, "predict_block", lambda _, sample, block, *__: (scores, sample.nodata_mask(block))
    )
    more = ["--geotiff", "--set", f"data.label_map={label_map}", "--overlays", "none"]
    assert command(*more)[0] == command(*more, "--values", "--save-path", tmp_path / "own")[0] == 0
    with rasterio.open(tmp_path / "own/masks/a.tif") as file:
        found = file.read()
        assert file.dtypes[0] == kind and len(found) == bands
    with rasterio.open(tmp_path / "out/masks/a.tif") as file:
        classes = file.read(1)
    assert (classes[:5] == 255).all() and set(np.unique(classes[5:])) == {0, 1, 2}
    assert np.array_equal(found[0], np.choose(np.minimum(classes, 3), values))


def test_options_that_windows_do_not_support(command, tmp_path, monkeypatch):
    write_raster(tmp_path / "rasters/a.tif", scene(60, 50))
    code, _, err = command("--geotiff", "--probabilities")
    assert code == 1 and "--probabilities needs too much memory" in err
    code, _, err = command("--geotiff", "--set", "evaluation.mode=resize", "--save-path",
                           tmp_path / "b")  # fmt: skip
    assert code == 1 and "evaluation.mode resize needs whole images" in err
    monkeypatch.setitem(sys.modules, "rasterio", None)
    code, _, err = command("--geotiff", "--save-path", tmp_path / "c")
    assert code == 1 and "needs rasterio. Fix: pip install -r requirements-extra.txt" in err


def test_killed_it_continues_and_writes_the_same(command, small_blocks, tmp_path, monkeypatch):
    write_raster(tmp_path / "rasters/a.tif", scene(100, 140))
    command("--geotiff", "--confidence", "--save-path", tmp_path / "whole").output()
    predicted, blocks = geotiff.predict_block, []

    def dying(predictor, dates, block, *more):
        blocks.append(block)
        if len(blocks) == 4:
            raise KeyboardInterrupt
        return predicted(predictor, dates, block, *more)

    monkeypatch.setattr(geotiff, "predict_block", dying)
    assert command("--geotiff", "--confidence")[0] == 130
    assert not (tmp_path / "out/masks/a.tif").exists()
    command("--geotiff", "--confidence").output()
    assert len(blocks) == len(set(blocks)) + 1 == 2 * 3 + 1  # a block is given twice
    for file in ("masks/a.tif", "confidence/a.tif", "overlays/a.jpg", "areas.csv"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert not (tmp_path / "out/masks/a.parts").exists()


def test_reads_are_limited(command, small_blocks, tmp_path, monkeypatch):
    """Read at most a block and its windows, so that memory does not depend on the image size."""
    values, sides = scene(208, 200), []
    values[:, :40] = 0
    write_raster(tmp_path / "rasters/a.tif", values, nodata=0)
    read = Raster._values

    def recorded(raster, rect, shape=None):
        sides.extend(shape or (rect.height, rect.width))
        return read(raster, rect, shape)

    monkeypatch.setattr(Raster, "_values", recorded)
    monkeypatch.setattr(geotiff, "PREVIEW", 36)
    command("--geotiff", "--confidence").output()
    crop = load_config(tmp_path / "run/config.yaml").crop_size
    assert 64 < max(sides) <= 64 + 2 * (crop - 1) < 200


def test_blocks_of_another_file_are_refused(command, tmp_path, monkeypatch):
    write_raster(tmp_path / "rasters/a.tif", scene(60, 50))
    monkeypatch.setattr(geotiff, "write_all", lambda *_: sys.exit(9))
    assert command("--geotiff")[0] == 9
    monkeypatch.undo()
    write_raster(tmp_path / "rasters/a.tif", scene(60, 50))
    code, _, err = command("--geotiff")
    assert code == 1 and "a.parts: started by another version, or before" in err
