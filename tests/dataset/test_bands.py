"""Images of any depth and number of bands: reading, augmentation, prediction and errors."""

import json
import sys

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import ExifTags, Image, ImageOps

import evaluate
import predict
from dataset.bands import bands_of, is_grey, read_bands, rgb_preview, stored_bands
from dataset.image_files import exif_orientation, image_size
from dataset.tiff import tiff_bands
from dataset.transforms.strong import colour_jitter, draw_strong, strong_view
from dataset.validation import check_files, read_splits
from engine.cost import step_cost
from tests.bands import banded, data, png, values, write_tiff
from tests.conftest import run_python
from tools.check_data import __main__ as check_data
from unimatch import UniMatch
from util.config.loading import load_config, parse
from util.config.schema import Config
from util.errors import UserError

tifffile = pytest.importorskip("tifffile")
ORIENTATION = ExifTags.Base.Orientation
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_rgb_is_what_pillow_makes_of_it(mode, suffix, tmp_path):
    if (mode, suffix) == ("CMYK", "png"):
        pytest.skip("no such file")
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(values(3)).convert(mode).save(path)
    found = read_bands(path, data())[0]
    assert found.dtype == np.uint8
    assert np.array_equal(found, np.asarray(Image.open(path).convert("RGB")))
    assert np.array_equal(np.asarray(rgb_preview(found, data())), found)


def test_only_what_has_one_band_is_grey(tmp_path):
    for name, bands in {"one": 0, "three": 3, "six": 6}.items():
        write_tiff(tmp_path / f"{name}.tif", values(bands), planarconfig="contig")
        assert is_grey(tmp_path / f"{name}.tif") == (name == "one")
    assert tiff_bands(tmp_path / "one.tif") == ("grey", False, ())
    assert tiff_bands(tmp_path / "six.tif") == ((1, 2, 3, 4, 5, 6), False, ())


@pytest.mark.parametrize("kind, how, order", [
    (np.uint8, {"planarconfig": "contig"}, (0, 1, 2)),
    (np.uint16, {"planarconfig": "contig", "compression": "zlib"}, (0, 1, 2)),
    (np.float32, {"planarconfig": "separate"}, (2, 0, 1)),
    (np.uint8, {"planarconfig": "separate", "compression": "zlib"}, (2, 0, 1)),
    *((np.uint16, {"metadata": {"axes": axes}}, (0, 1, 2)) for axes in ("YXS", "YXC")),
    *((np.uint16, {"metadata": {"axes": axes}}, (2, 0, 1)) for axes in ("SYX", "CYX")),
    (np.uint16, {"metadata": {"axes": "CYX"}, "ome": True}, (2, 0, 1)),
    (np.uint16, {"metadata": {"axes": "CYX"}, "imagej": True, "compression": "zlib"}, (2, 0, 1)),
])  # fmt: skip
def test_bands_of_a_tiff(kind, how, order, tmp_path):
    array, path = values(6, kind), tmp_path / "a.tif"
    write_tiff(path, array.transpose(order), **how)
    deep = {} if kind == np.uint8 else {"image_range": (100, 60000)}
    found = read_bands(path, data(bands=[6, 1, 2], **deep))[0]
    expected = array[..., [5, 0, 1]]
    if deep:
        expected = np.clip((expected.astype(float) - 100) / 59900, 0, 1).astype(np.float32)
    assert found.dtype == expected.dtype and np.array_equal(found, expected)
    assert "metadata" in how or image_size(path) == (7, 5)


@pytest.mark.parametrize("kind", [np.int16, np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_one_band_in_any_order_of_bytes(kind, byteorder, compression, tmp_path):
    array, path = RNG.integers(-99, 99, (5, 7)).astype(kind), tmp_path / "a.tif"
    write_tiff(path, array, byteorder=byteorder, compression=compression)
    for bands in ("grey", (1,)):
        assert np.array_equal(stored_bands(path, bands, 1)[0], array[..., None])


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_no_band_in_planes_is_lost(compression, tmp_path):
    path, how = tmp_path / "a.tif", {"planarconfig": "separate", "compression": compression}
    array = values(3)
    write_tiff(path, array.transpose(2, 0, 1), **how)
    assert bands_of(path).selection == (1, 2, 3)
    assert np.array_equal(stored_bands(path, "rgb", 1)[0], array)
    write_tiff(path, values(5).transpose(2, 0, 1), **how)
    with pytest.raises(UserError, match="5 bands, but data.bands is rgb"):
        stored_bands(path, "rgb", 1)
    grey_alpha = values(2)
    write_tiff(path, grey_alpha.transpose(2, 0, 1), extrasamples=["unassalpha"], **how)
    found, _ = stored_bands(path, "grey", 1)
    assert np.array_equal(found[..., 0], grey_alpha[..., 0])


def test_many_bands_are_read_in_silence(tmp_path):
    """Pillow logs an error for more samples than it can decode; another process shows it."""
    write_tiff(tmp_path / "a.tif", values(8), planarconfig="contig")
    code = (
        "from pathlib import Path; from dataset.bands import bands_of; "
        f"print(len(bands_of(Path({str(tmp_path / 'a.tif')!r})).selection))"
    )
    assert run_python("-c", code) == (0, "8\n", "")


def test_a_range_for_each_band(tmp_path):
    array = np.stack([np.full((2, 2), 5), np.full((2, 2), 300)], -1).astype(np.float32)
    write_tiff(tmp_path / "a.tif", array, planarconfig="contig")
    found = read_bands(tmp_path / "a.tif", data(bands=[1, 2], image_range=[[0, 10], [200, 600]]))[0]
    assert found[0, 0].tolist() == [0.5, 0.25]


def test_colour_of_16_bits_keeps_its_low_byte(tmp_path):
    deep = values(4, np.uint16)
    (tmp_path / "a.png").write_bytes(png(deep[..., :3]))
    tifffile.imwrite(tmp_path / "b.tif", deep[..., :3], photometric="rgb")
    write_tiff(tmp_path / "c.tif", deep, planarconfig="contig")  # the fourth band is left out
    for path in tmp_path.iterdir():
        found = read_bands(path, data(image_range=(0, 65535)))[0]
        np.testing.assert_array_equal((found * 65535).round(), deep[..., :3])


@pytest.mark.parametrize("turn", range(1, 9))
def test_deep_files_are_read_as_viewers_show_them(turn, tmp_path):
    array = values(3, np.uint16)
    tifffile.imwrite(tmp_path / "colour.tif", array, photometric="rgb", extratags=turned_by(turn))
    six = np.concatenate([array, array], axis=2)
    write_tiff(tmp_path / "six.tif", six, planarconfig="contig", extratags=turned_by(turn))
    Image.fromarray(array[..., 0].astype(np.uint8)).save(
        tmp_path / "grey.tif", tiffinfo={ORIENTATION: turn}
    )
    shown = Image.fromarray(array[..., 0].astype(np.int32))
    shown.getexif()[ORIENTATION] = turn
    expected = np.asarray(ImageOps.exif_transpose(shown))
    for name, bands in (("colour", "rgb"), ("six", [1]), ("grey", "grey")):
        path = tmp_path / f"{name}.tif"
        deep = {} if name == "grey" else {"image_range": (0, 65535)}
        found = read_bands(path, data(bands=bands, **deep))[0]
        assert (
            image_size(path) == (found.shape[1], found.shape[0]) and exif_orientation(path) == turn
        )
        if deep:
            np.testing.assert_array_equal((found[..., 0] * 65535).round(), expected)
        else:
            np.testing.assert_array_equal(found[..., 0], expected % 256)


def turned_by(turn):
    return [(ORIENTATION, "H", 1, turn, True)]


def test_many_pixels_are_refused_whatever_reads_them(tmp_path):
    Image.new("L", (1001, 1000)).save(tmp_path / "a.png")
    (tmp_path / "deep.png").write_bytes(png(np.zeros((1000, 1001, 3), np.uint16)))
    write_tiff(tmp_path / "six.tif", np.zeros((1000, 1001, 6), np.uint8), planarconfig="contig")
    for name, bands in (("a.png", "grey"), ("a.png", [1]), ("deep.png", "rgb"), ("six.tif", [1])):
        with pytest.raises(UserError, match="1001x1000 pixels.*raise data.max_megapixels"):
            read_bands(tmp_path / name, data(bands=bands, max_megapixels=1))


def test_a_palette_has_the_bands_of_its_colours(tmp_path):
    image = Image.fromarray(values(3)).convert("P")
    image.save(tmp_path / "a.png")
    colours = np.asarray(image.convert("RGB"))
    assert np.array_equal(
        read_bands(tmp_path / "a.png", data(bands=[3, 1]))[0], colours[..., [2, 0]]
    )


@pytest.mark.parametrize("bands, shown", [("grey", [0] * 3), ([5, 2], [0, 1, 1])])
def test_of_one_or_two_bands_the_last_is_shown_again(bands, shown):
    pixels = RNG.integers(0, 256, (4, 5, len(set(shown))), dtype=np.uint8)
    assert np.array_equal(np.asarray(rgb_preview(pixels, data(bands=bands))), pixels[..., shown])


def test_one_band_of_any_depth(tmp_path):
    array = values(0, np.uint16)
    Image.fromarray(array).save(tmp_path / "a.png")
    Image.fromarray((array / 65535).astype(np.float32)).save(tmp_path / "b.tif")
    for bands, count in (("grey", 1), ("rgb", 3), ([1], 1)):
        a = read_bands(tmp_path / "a.png", data(bands=bands, image_range=(0, 65535)))[0]
        b = read_bands(tmp_path / "b.tif", data(bands=bands, image_range=(0, 1)))[0]
        assert a.shape == (5, 7, count) and a.dtype == np.float32
        np.testing.assert_allclose(a, b, atol=1e-6)
    Image.fromarray(values(0)).save(tmp_path / "c.png")
    eight = read_bands(tmp_path / "c.png", data(bands="grey"))[0]
    assert eight.dtype == np.uint8 and eight.shape == (5, 7, 1)
    for top in (1, 255, 4095, 65535):  # of whole scales
        scaled = read_bands(tmp_path / "c.png", data(bands="grey", image_range=(0, top)))[0]
        np.testing.assert_allclose(scaled, eight / 255, atol=1e-6)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("faulty")
    nan = np.full((4, 4), np.nan, np.float32)
    Image.fromarray(values(0, np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "deep_rgb.png").write_bytes(png(values(3, np.uint16)))
    Image.fromarray(values(3)).save(tmp_path / "rgb.png")
    Image.fromarray(values(0)).save(tmp_path / "grey.png")
    Image.fromarray(nan).save(tmp_path / "nan.tif")
    write_tiff(tmp_path / "six.tif", values(6), planarconfig="contig")
    write_tiff(tmp_path / "volume.tif", values(9)[..., :8].transpose(2, 0, 1))
    write_tiff(tmp_path / "two.tif", values(2), planarconfig="contig")
    first, second = (Image.fromarray(values(0)) for _ in range(2))
    first.save(tmp_path / "pages.tif", save_all=True, append_images=[second])
    write_tiff(tmp_path / "complex.tif", values(0).astype(np.complex64))
    (tmp_path / "damaged.tif").write_bytes((tmp_path / "six.tif").read_bytes()[:99])
    return tmp_path


@pytest.mark.parametrize("name, keys, message", [
    ("deep.png", {}, "holds uint16.*set data.image_range"),
    ("deep_rgb.png", {}, "holds uint16.*set data.image_range"),
    ("rgb.png", {"bands": "grey"}, "has 3 bands, but data.bands is grey. Fix: set it to rgb"),
    ("six.tif", {}, "has 6 bands, but data.bands is rgb. Fix: set it to the numbers of bands"),
    ("rgb.png", {"bands": [1, 4]}, "has 3 bands, but data.bands names band 4; expected at most 3"),
    ("grey.png", {"bands": [2]}, "has 1 band, but data.bands names band 2; expected at most 1"),
    ("grey.png", {"image_range": (0, 2005)}, r"8 bits, but data.image_range \[0.0, 2005"),
    ("six.tif", {"bands": [1, 2], "image_range": ((0, 255), (9, 255))}, "8 bits, but"),
    ("nan.tif", {"bands": [1], "image_range": (0, 1)}, "NaN or infinity in 16 values"),
    ("nan.tif", {"bands": "grey", "image_range": (0, 1)}, "NaN or infinity in 16 values"),
    ("volume.tif", {"bands": [1]}, "8 pages of 7x5; expected one image.*each slice of a volume"),
    ("two.tif", {"bands": "grey"}, "has 2 bands, but data.bands is grey. Fix: set it to the"),
    ("two.tif", {}, "has 2 bands, but data.bands is rgb. Fix: set it to the numbers of bands"),
    ("pages.tif", {"bands": "grey"}, "holds 2 images, expected one"),
    ("pages.tif", {}, "holds 2 images, expected one"),
    ("complex.tif", {"bands": [1]}, "complex64, expected numbers"),
    ("damaged.tif", {"bands": [1]}, "not a readable image"),
    ("none.tif", {"bands": [1]}, "no such file"),
    ("none.png", {}, "no such file"),
])  # fmt: skip
def test_unusable_files_give_one_error_line(name, keys, message, faulty):
    with pytest.raises(UserError, match=message) as error:
        read_bands(faulty / name, data(**keys))
    assert str(error.value).startswith(str(faulty / name)) and "\n" not in str(error.value)


def test_smaller_copies_in_a_tiff_are_no_images(tmp_path):
    """Skip reduced-resolution pages, which GeoTIFFs hold for fast display."""
    array = values(3, h=8, w=8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(array, photometric="rgb")
        file.write(array[::2, ::2], photometric="rgb", subfiletype=1)
    assert np.array_equal(read_bands(tmp_path / "a.tif", data())[0], array)


def test_tifffile_is_optional(faulty, monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(UserError, match="needs tifffile.*requirements-extra.txt"):
        read_bands(faulty / "six.tif", data(bands=[1]))
    read_bands(faulty / "rgb.png", data())


@pytest.mark.parametrize("keys, message", [
    ({"bands": "gray"}, "data.bands"),
    ({"bands": [1, 2], "mean": [0.5]}, "data.mean: has 1 number for 2 bands"),
    ({"bands": "grey", "std": [1, 1, 1]}, "data.std: has 3 numbers for 1 band"),
    ({"mean": [123.7, 116.3, 103.5]}, "data.mean"),
    ({"std": [58.4, 57.1, 57.4]}, "data.std"),
    ({"bands": [1, 2, 3], "rgb_bands": [1, 2, 4]}, "three of the numbers in data.bands"),
    ({"bands": [1, 2, 3], "rgb_bands": [3, 2, 2]}, "three of the numbers in data.bands"),
    ({"rgb_bands": [1, 2, 3]}, "three of the numbers in data.bands"),
    ({"bands": [1, 2], "image_range": [[0, 1]]}, "one for each band"),
    ({"bands": [1, 2], "image_range": [[0, 1], [3, 2]]}, "the lower one first"),
])  # fmt: skip
def test_keys_that_disagree(keys, message, toy):
    with pytest.raises(UserError, match=message):
        parse(Config, toy.tree | {"data": toy.tree["data"] | keys}, "config")


def test_normalisation_by_default():
    assert data().mean == (0.485, 0.456, 0.406) and data().std == (0.229, 0.224, 0.225)
    assert data(bands="grey").mean == (0.0,) and data(bands=[3, 1]).std == (1.0, 1.0)
    assert data().channels == 3 and data().rgb_channels == (0, 1, 2)


def drawn(images):
    views = [draw_strong(RNG, 0.2) for _ in range(images)]
    return {k: torch.from_numpy(np.stack([v[k] for v in views])) for k in views[0]}


@pytest.mark.parametrize("count, rgb", [(5, (3, 0, 1)), (3, (2, 0, 1))])
def test_colours_among_other_bands_are_jittered_as_alone(count, rgb):
    x, view = torch.rand(6, count, 9, 8), drawn(6)
    strong, alone = strong_view(x, view, rgb), strong_view(x[:, rgb], view)
    torch.testing.assert_close(strong[:, rgb], alone)
    for band in set(range(count)) - set(rgb):  # without colour: brightness, contrast and blur
        single = strong_view(x[:, band : band + 1], view, None)
        torch.testing.assert_close(strong[:, band : band + 1], single)
    assert not torch.allclose(strong, x)


def test_grey_images_have_no_hue():
    x, view = torch.rand(8, 1, 9, 8), drawn(8)
    ours = colour_jitter(x, view["factors"], view["hue"], view["order"], None)
    for i in range(8):
        one = x[i]
        for slot in view["order"][i].tolist():
            if slot < 2:
                change = (TF.adjust_brightness, TF.adjust_contrast)[slot]
                one = change(one, view["factors"][i][slot].item())
        torch.testing.assert_close(ours[i], one)


UNET = {"network": "unet", "widths": [4, 8], "dropout": [0, 0], "pretrained": "none"}


@pytest.mark.parametrize("bands, keys, model", [
    ("grey", {}, UNET),
    ([1, 2, 3, 6], {"image_range": [0, 2295], "rgb_bands": [3, 2, 1], "mean": [0.3] * 4}, {}),
])  # fmt: skip
def test_from_training_to_prediction(bands, keys, model, toy, train, run, tmp_path):
    toy.tree["model"] = model or toy.tree["model"]
    banded(toy, bands, **keys)
    train(UniMatch, toy.argv(tmp_path / "run", "--set", "epochs=1", "epoch_length=1"))
    config = tmp_path / "run/config.yaml"
    best = tmp_path / "run/best.pth"
    run(
        evaluate, "--config", config, "--checkpoint", best, "--json", tmp_path / "scores.json"
    ).output()
    scored = json.loads((tmp_path / "scores.json").read_text())["miou"]
    record = json.loads((tmp_path / "run/metrics.jsonl").read_text())
    assert scored == pytest.approx(record["scores"]["model"]["miou"])
    run(
        predict, "--config", config, "--checkpoint", best, "--images", toy.root / "images",
        "--save-path", tmp_path / "out", "--device", "cpu",
    ).output()  # fmt: skip
    assert len(list((tmp_path / "out/overlays").iterdir())) == 11


def test_grey_images_alone_are_warned_of_under_rgb(toy, caplog):
    """Do not warn of a few grey images among colour images, as in COCO."""

    def warnings(bands):
        caplog.clear()
        config = load_config(toy.config, [f"data.bands={bands}"]).data
        check_files(config, *read_splits(config, unlabeled=True))
        return [line for line in caplog.messages if "are grey" in line]

    first, *others = sorted((toy.root / "images").iterdir())
    for path in others:
        Image.open(path).convert("L").save(path)
    unlabeled, val = warnings("rgb")  # the first image is a labelled one
    assert (
        f"{toy.path('unlabeled')}: all images checked (5) are" in unlabeled and "bands=grey" in val
    )
    Image.open(first).convert("L").save(first)
    assert len(warnings("rgb")) == 3 and not warnings("grey")


def test_check_data_tells_of_every_band(toy, run, tmp_path):
    banded(toy, [1, 2, 3, 6], image_range=[0, 2295], rgb_bands=[3, 2, 1])
    path = sorted((toy.root / "images").glob("u*"))[0]
    array = tifffile.imread(path)
    array[..., 5], array[: len(array) * 3 // 4, :, 0] = 7, 4000
    write_tiff(path, array, planarconfig="contig")
    page, record = tmp_path / "report.html", tmp_path / "report.json"
    out = run(
        check_data, "--config", toy.config, "--html", page, "--json", record
    ).output()  # fmt: skip
    found = json.loads(record.read_text())["lists"]
    assert found["labeled"]["modes"] == {"6 bands": 3} and found["labeled"]["bits"] == {"16": 3}
    bands = found["unlabeled"]["bands"]
    assert list(bands) == ["band 1", "band 2", "band 3", "band 6"]
    assert all(sum(band["steps"]) == pytest.approx(1) for band in bands.values())
    assert [band["constant"] for band in bands.values()] == [0, 0, 0, 1]
    assert bands["band 1"]["highest"] >= 0.15 > bands["band 2"]["highest"]
    assert "unlabeled: band 6 has one value everywhere in 1 image" in out
    text = page.read_text()
    assert "band that shows nothing" in text and "of band 1 has the highest value" in text
    array[0, 0] = 0
    tifffile.imwrite(path, array.astype(np.float32) * np.nan, photometric="minisblack",
                     planarconfig="contig")  # fmt: skip
    code, out, _ = run(check_data, "--config", toy.config)
    assert code == 1 and "NaN or infinity in" in out


def test_what_a_step_of_many_bands_costs(toy):
    toy.tree["model"] = UNET
    toy.tree["criterion"] = {"name": "ce_dice", "class_weights": "auto"}
    toy.change_data(bands="grey", geometry="rotate_resize")
    grey = step_cost(UniMatch, load_config(toy.config), 2, 2)
    eight = {"data.bands": [*range(1, 9)], "data.image_range": [0, 9]}
    sets = [f"{key}={value}" for key, value in eight.items()]
    many = step_cost(UniMatch, load_config(toy.config, sets), 2, 2)
    assert many.weights - grey.weights == 7 * 4 * 9 * 4  # of the first convolution
    assert many.batch > 8 * grey.batch / 2
