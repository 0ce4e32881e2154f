"""`tools.prepare init` for images of more than 8 bits or of many bands."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from dataset.bands import read_bands
from dataset.folders import read_samples
from dataset.reader import Reader
from tests.bands import png
from tests.own_images import save_image, write_images, write_masks
from tools.check_data import __main__ as check_data
from tools.prepare.own.images import (
    ImageFile,
    Kind,
    band_settings,
    grid_side,
    inspect_image,
    suspected_fill,
)
from util.config.loading import load_config

tifffile = pytest.importorskip("tifffile")
COUNT, SIZE = 6, (44, 52)
SCALES = np.array([10000, 3000, 200, 60000, 1])


@pytest.fixture(autouse=True)
def masks(init):
    write_masks(Path("masks"), write_images(Path("photos"), COUNT), "index")


def tiff(bands, **how):
    return lambda image, path: tifffile.imwrite(path, image[..., bands], **how)


FORMS = {
    "png": lambda image, path: save_image(image[..., 1], path.with_suffix(".png")),
    "png in colour": lambda image, path: path.with_suffix(".png").write_bytes(png(image[..., :3])),
    "grey": tiff(1),
    "bands": tiff(slice(5), photometric="minisblack", planarconfig="contig"),
    "colour": tiff(slice(3), photometric="rgb"),
    "colour and alpha": tiff(slice(4), photometric="rgb", extrasamples=["unassalpha"]),
    "colour and infrared": tiff(slice(5), photometric="rgb", extrasamples=[0, 0]),
}


def write(form, kind=np.uint16, numbers=range(COUNT)):
    """Write images with values of band b uniform in 0 to SCALES[b]; return the last path."""
    for i in numbers:
        image = np.random.default_rng(i).random((*SIZE, 5)) * SCALES
        image[0, 0] = 60000  # hot pixels, which must not set the range
        path = Path("images", f"{'city one' if i % 2 else 'b/c'}/photo {i}.tif")
        path.parent.mkdir(parents=True, exist_ok=True)
        FORMS[form](image.astype(kind), path)
    return path.with_suffix(".png") if "png" in form else path


@pytest.mark.parametrize(
    ("form", "kind", "bands", "rgb_bands"),
    [
        ("png", np.uint16, "grey", None),
        ("png in colour", np.uint16, "rgb", None),
        ("grey", np.float32, "grey", None),
        ("bands", np.uint16, (1, 2, 3, 4, 5), None),
        ("bands", np.float32, (1, 2, 3, 4, 5), None),
        ("bands", np.uint8, (1, 2, 3, 4, 5), None),
        ("colour", np.uint16, "rgb", None),
        ("colour and alpha", np.uint8, "rgb", None),
        ("colour and infrared", np.uint16, (1, 2, 3, 4, 5), (1, 2, 3)),
    ],
)
def test_bands_depth_and_range_are_recognised(form, kind, bands, rgb_bands, init):
    path = write(form, kind)
    out = init().output()
    text, data = Path("configs/mine.yaml").read_text(), load_config("configs/mine.yaml").data
    assert (data.bands, data.rgb_bands) == (bands, rgb_bands)
    assert ("# rgb_bands" in text) == (form == "bands")
    assert ("percentiles 0.1 and 99.9" in text) == (kind != np.uint8)
    if kind == np.uint8:
        assert data.image_range is None
        return
    assert ("floats" if kind == np.float32 else "more than 8 bits") in out
    tops = {"grey": SCALES[1], "rgb": SCALES[:3].max()}.get(bands, SCALES)
    lows, highs = np.array(data.image_range).T
    assert (np.abs(lows) < 0.01 * tops + 1).all()
    # Percentile 99.9 of uniform values, about 1000 pixels of each of 6 images, with hot pixels.
    if kind == np.float32:
        np.testing.assert_allclose(highs, tops, rtol=0.02)
    pixels = read_bands(path, data)[0]
    assert pixels.dtype == np.float32
    normal = (pixels - data.mean) / data.std
    if bands == (1, 2, 3, 4, 5) and kind == np.float32:
        np.testing.assert_allclose(data.mean, 0.5, atol=0.02)
        np.testing.assert_allclose(normal.std((0, 1)), 1, atol=0.05)


@pytest.mark.parametrize("form", ["png", "bands"])
def test_check_data_prints_mean_and_std_of_an_edited_range(form, init, run):
    """The written mean and std fit the written range; a range edited by hand needs others."""
    write(form)
    assert init()[0] == 0
    config = Path("configs/mine.yaml")
    tops = [SCALES[1]] if form == "png" else SCALES
    ranges = [[0, 10 * float(top)] for top in tops]
    edited = f"data.image_range={ranges[0] if form == 'png' else ranges}"

    def warned(*settings):
        out = run(check_data, "--config", config, "--set", *settings).output()
        return re.findall(r"Fix: (data.mean: .*), (data.std: .*)", out)

    assert not warned("data.cache_mb=0")
    ((mean, std),) = warned(edited)
    data = load_config(config, [edited]).data
    samples = read_samples(data.labeled, data, masks=True).samples
    pixels = np.concatenate(
        [Reader(data).image(sample).reshape(-1, len(tops)) for sample in samples]
    )
    assert yaml.safe_load(mean)["data.mean"] == pytest.approx(pixels.mean(0), abs=1e-4)
    assert yaml.safe_load(std)["data.std"] == pytest.approx(pixels.std(0), abs=1e-4)
    assert not warned(edited, *(pair.replace(": ", "=") for pair in (mean, std)))


def test_many_images_keep_as_many_pixels_as_few():
    assert {grid_side(count) for count in (1, 6, 2048)} == {32}
    assert [grid_side(count) for count in (2049, 10_000, 100_000, 10**7)] == [31, 14, 4, 4]
    path = write("bands")
    few, many = (inspect_image(path, 1, side) for side in (32, 4))
    assert few.values.shape == (32 * 32, 5) and many.values.shape == (4 * 4, 5)


@pytest.mark.parametrize(("form", "pixels"), [("L", 1024), ("RGB", 0)])
def test_pixels_of_photographs_are_not_kept(form, pixels):
    save_image(Image.new(form, SIZE), "photo.png")
    assert len(inspect_image(Path("photo.png"), 1, 32).values) == pixels


@pytest.mark.parametrize(
    "values", [[3e6, 3e6], [0, 0], [20000.01, 20000.025], [1234566.0, 1234574.0]]
)
def test_constant_bands_and_narrow_ranges_are_scaled(values):
    kind = Kind((1, 2), False, "floats")
    pixels = np.stack([np.linspace(*values, 100), np.linspace(0, 1, 100)], axis=1)
    found = band_settings([ImageFile(Path("a.tif"), (10, 10), kind, pixels)], kind)
    low, high = found["image_range"][0]
    assert 0 < high - low and abs(low - values[0]) <= 0.01 * (high - low)
    spread = np.clip((pixels[:, 0] - low) / (high - low), 0, 1).std()
    assert found["std"][0] == pytest.approx(spread if values[0] < values[1] else 1, abs=1e-4)
    assert (spread > 0.25) == (values[0] < values[1])


@pytest.mark.parametrize("fill, values", [
    (-9999, [0, 0.4]), (np.finfo(np.float32).min, [-5, 2000]), (65535, [300, 9000]),
    (-32768, [0, 10000]),
])  # fmt: skip
def test_a_fill_value_without_a_tag_is_suspected(fill, values):
    assert _suspected(fill, values) == (fill, 0.12)


@pytest.mark.parametrize("often, values", [
    (0, [400, 2000]), (65535, [0, 65535]), (0, [0, 65535]), (65535, [0, 0]), (0.2, [0, 0.4]),
])  # fmt: skip
def test_ordinary_values_are_no_fill_values(often, values):
    assert _suspected(often, values) is None


def _suspected(often, values):
    kind = Kind((1, 2), False, "floats")
    pixels = np.random.default_rng(0).uniform(*values, (1000, 2))
    pixels[:120, 1] = often
    return suspected_fill([ImageFile(Path("a.tif"), (10, 10), kind, pixels)], kind)


def test_a_suspected_fill_value_is_reported(init):
    for i in range(COUNT):
        path = Path("images", f"{'city one' if i % 2 else 'b/c'}/photo {i}.tif")
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.random.default_rng(i).random(SIZE, np.float32)
        image[:5] = -9999
        tifffile.imwrite(path, image)
    warning = "% of a band's values are -9999, far from all others, and set data.image_range. Fix"
    assert warning in init().output()


def test_mixed_images_and_nan_are_refused_in_one_line(init):
    write("bands", np.uint16, range(1, COUNT))
    path = write("grey", np.uint16, [0])
    err = init().mistake()
    assert f"{path} is grey of more than 8 bits" in err and "is 5 bands" in err
    write("bands", np.float32)
    image = np.zeros((*SIZE, 5), np.float32)
    image[3, 4, 2] = np.nan
    tifffile.imwrite(path, image, photometric="minisblack", planarconfig="contig")
    assert "photo 0.tif: NaN or infinity in 1 value" in init().mistake()
    tifffile.imwrite(path, np.zeros((3, *SIZE), np.float32), photometric="minisblack")
    assert "of a volume" in init().mistake()
    assert not Path("configs").exists()


def test_grey_photographs_are_grey_and_beside_coloured_ones_rgb(init):
    for i in range(COUNT):
        path = f"images/{'city one' if i % 2 else 'b/c'}/photo {i}.png"
        save_image(np.random.default_rng(i).integers(0, 200, SIZE, np.uint8), path)
    assert init("--lists", "a")[0] == 0
    data = load_config("configs/mine.yaml").data
    assert data.bands == "grey" and data.image_range is None
    assert data.mean[0] == pytest.approx(100 / 255, abs=0.02)
    Image.open(path).convert("RGB").save(path)
    assert init("--lists", "b", "--out", "configs/other.yaml")[0] == 0
    assert load_config("configs/other.yaml").data.bands == "rgb"
