"""Pixels without data, by the nodata value, mask or alpha of a TIFF, are ignored everywhere."""

import sys

import numpy as np
import pytest
from PIL import Image

import predict
from dataset.bands import read_bands
from dataset.class_frequency import class_pixels
from dataset.folders import names_by_stem, read_samples
from dataset.mask_files import LabelLookup, open_mask
from dataset.reader import Reader
from dataset.split_files import read_split_file
from supervised import SupOnly
from tests.bands import data
from tests.own_images import TINY
from tests.own_images import write_raster as write
from tools.check_data import __main__ as check_data
from tools.check_data.inspect import CheckedSample
from tools.check_data.thumbnails import figures
from tools.prepare import __main__ as prepare
from tools.splits.partition import read_classes
from util.config.loading import load_config
from util.errors import UserError

pytest.importorskip("tifffile")
rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
NODATA = np.zeros((40, 48), bool)
NODATA[:10, 5:] = True


def image(count, kind=np.uint8, fill=0):
    values = np.random.default_rng(0).integers(1, 100, (count, *NODATA.shape)).astype(kind)
    values[:, NODATA] = fill
    return values


def few():
    return np.where(NODATA, 3, image(1) % 2 + 1).astype(np.uint8)


def alpha(count, kind=np.uint8):
    return np.concatenate([image(count, kind), (~NODATA[None] * 255).astype(kind)])


def write_png(path, bands):
    """Write a PNG with the suffix of a TIFF, and its mask with a value per band."""
    Image.fromarray(bands.transpose(1, 2, 0)).save(path, "PNG")
    masks = np.where(NODATA, 0, 255)[None].repeat(3, 0).astype(np.uint8)
    masks[0, ~NODATA] = 0  # the other bands have data there
    write(path.with_name("x.tif"), masks, photometric="minisblack", interleave="band")
    path.with_name("x.tif").rename(f"{path}.msk")


def unmasked(count, kind, **how):
    return lambda path: write(path, image(count, kind), mask=~NODATA, **how)


IMAGES = {  # bands of the config, what is written
    "nodata": ("grey", lambda p: write(p, image(1), nodata=0)),
    "nodata of 2 bits": ("grey", lambda p: write(p, few(), nodata=3,
                                                 nbits=2, photometric="minisblack")),
    "nodata of white as 0": ("grey", lambda p: write(p, image(1), nodata=0,
                                                     photometric="miniswhite")),
    "signed bytes": ("grey", lambda p: write(p, image(1, np.int8, -1), nodata=-1)),
    "nodata of floats": ([1, 2], lambda p: write(p, image(2, np.float32, -9999), nodata=-9999)),
    "nan": ("grey", lambda p: write(p, image(1, np.float32, np.nan), nodata=np.nan)),
    "nodata in planes": ([1, 2, 3], lambda p: write(p, image(3, np.int16, -1), nodata=-1,
                                                    interleave="band")),
    "mask": ("grey", unmasked(1, np.uint8)),
    "mask, compressed": ("grey", unmasked(1, np.uint8, compress="deflate")),
    "mask of colours": ("rgb", unmasked(3, np.uint8, photometric="rgb")),
    "mask of colours in planes": ("rgb", unmasked(3, np.uint8, photometric="rgb",
                                                  interleave="band")),
    "mask of deep bands": ([1, 2], unmasked(2, np.uint16)),
    "sidecar mask": ("grey", unmasked(1, np.uint8, internal=False)),
    "sidecar mask of deep bands": ([1, 2], unmasked(2, np.uint16, internal=False)),
    "sidecar mask of a png": ("rgb", lambda p: write_png(p, image(3))),
    "alpha": ("rgb", lambda p: write(p, alpha(3), photometric="rgb", alpha="yes")),
    "deep alpha": ([1, 2, 3], lambda p: write(p, alpha(3, np.uint16), photometric="rgb",
                                              alpha="yes")),
}  # fmt: skip


def test_alpha_that_the_config_names_is_data(run, tmp_path, monkeypatch):
    """Near infrared as GDAL marks a fourth band; `init` says that it leaves the band out."""
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        write(tmp_path / f"images/{number}.tif", alpha(3), photometric="rgb", alpha="yes")
        write(tmp_path / f"masks/{number}.tif", NODATA[None].astype(np.uint8))
    path = tmp_path / "images/0.tif"
    pixels, nodata_mask = read_bands(path, data(bands=[1, 2, 3, 4]))
    assert nodata_mask is None and np.array_equal(pixels, alpha(3).transpose(1, 2, 0))
    output = run(prepare, "init", "--images", "images", "--masks", "masks",
               "--out", "c.yaml").output()  # fmt: skip
    assert "band 4 is marked as alpha: where it is 0, pixels have no data" in output


@pytest.mark.parametrize("kind", IMAGES)
def test_pixels_without_data_are_found(kind, tmp_path):
    bands, make = IMAGES[kind]
    make(path := tmp_path / "a.tif")
    pixels, nodata_mask = read_bands(path, data(bands=bands, image_range=(0, 255)))
    assert (
        np.array_equal(nodata_mask, NODATA)
        and (pixels[NODATA] == 0).all()
        and (pixels[~NODATA] > 0).all()
    )


MASKS = {
    "nodata": lambda p, m: write(p, np.where(NODATA, 255, m)[None].astype(np.uint8), nodata=255),
    "negative": lambda p, m: write(p, np.where(NODATA, -1, m.astype(np.int16))[None], nodata=-1),
    "uint32": lambda p, m: write(p, np.where(NODATA, 2**32 - 1, m.astype(np.uint32))[None],
                                 nodata=2**32 - 1),
    "nan": lambda p, m: write(p, np.where(NODATA, np.nan, m)[None].astype(np.float32),
                              nodata=np.nan),
    "mask": lambda p, m: write(p, m[None], mask=~NODATA),
    "sidecar": lambda p, m: write(p, m[None], mask=~NODATA, internal=False),
}  # fmt: skip


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("label_map", [None, {0: 1, 1: 0}])
def test_masks_ignore_what_has_no_data(kind, label_map, tmp_path):
    classes = np.arange(NODATA.size, dtype=np.uint8).reshape(NODATA.shape) % 2
    MASKS[kind](path := tmp_path / "m.tif", classes)
    expected = np.where(NODATA, 255, classes if label_map is None else 1 - classes)
    assert np.array_equal(open_mask(path, LabelLookup(data(label_map=label_map))), expected)


@pytest.mark.parametrize("keys, zeros, masked", [
    ({}, 0, 255), ({"label_map": {1: 0, 2: 1}}, 255, 255), ({"label_map": {0: 1, 1: 0}}, 1, 255),
    ({"label_map": {1: 0, "other": 1}}, 255, 255),
    ({"reduce_zero_label": True, "classes": ["a", "b", "c"]}, 255, 255),
])  # fmt: skip
def test_a_nodata_value_is_a_class_if_the_config_says_so(keys, zeros, masked, tmp_path):
    """Pixels that a mask leaves out are ignored nevertheless."""
    out = np.zeros_like(NODATA)
    out[-3:] = True
    write(tmp_path / "m.tif", np.where(NODATA | out, 0, 1)[None].astype(np.uint8), nodata=0)
    Image.fromarray(np.where(out, 0, 255).astype(np.uint8)).save(tmp_path / "m.png")
    (tmp_path / "m.png").rename(tmp_path / "m.tif.msk")
    found = np.array(open_mask(tmp_path / "m.tif", LabelLookup(data(**keys))))
    assert (found[NODATA] == zeros).all() and (found[out] == masked).all()
    assert (found[~NODATA & ~out] == 0).all() or not keys


def test_a_nodata_value_beyond_colours_is_no_class(tmp_path):
    write(tmp_path / "m.tif", np.where(NODATA, 65535, 1)[None].astype(np.uint16), nodata=65535)
    lookup = LabelLookup(data(label_map={"1,1,1": 1}))
    assert np.array_equal(open_mask(tmp_path / "m.tif", lookup), np.where(NODATA, 255, 1))


@pytest.mark.parametrize("transparent", [0, 255])
def test_transparent_pixels_of_a_tiff_are_a_class_if_the_config_says_so(transparent, tmp_path):
    bands = np.stack([*image(3) * 0 + 9, np.where(NODATA, 0, 255)]).astype(np.uint8)
    write(tmp_path / "m.tif", bands, photometric="rgb", alpha="yes")
    label_map = {"9,9,9": 1} | ({"transparent": 0} if transparent == 0 else {})
    found = open_mask(tmp_path / "m.tif", LabelLookup(data(label_map=label_map)))
    assert np.array_equal(found, np.where(NODATA, transparent, 1))


def test_init_takes_the_nodata_value_for_a_class_only_if_it_must(run, tmp_path, monkeypatch):
    """A nodata value of 0 next to 1 is the background; next to other classes, `init` asks."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for number in range(3):
        Image.new("RGB", NODATA.shape[::-1]).save(f"images/{number}.png")
        write(
            tmp_path / f"masks/{number}.tif",
            np.where(NODATA, 0, 1)[None].astype(np.uint8),
            nodata=0,
        )
    argv = ["init", "--images", "images", "--masks", "masks", "--out", "c.yaml", "--force"]
    assert "0      background" in run(prepare, *argv, "--classes", "background,building").output()
    few_classes = np.where(NODATA, 0, 1 + np.arange(48) % 2)[None].astype(np.uint8)
    for number in range(3):
        write(tmp_path / f"masks/{number}.tif", few_classes, nodata=0)
    err = run(prepare, *argv).mistake()
    assert "22% of the pixels are 0, the nodata value; is this value ignored" in err
    run(prepare, *argv, "--classes", "a,b,c").output()
    for named in ("0=ignore,1=a,2=b", "1=a,2=b"):
        run(prepare, *argv, "--classes", named).output()
    for number in range(3):  # a little of two values to ignore, as from two sources
        mask = 1 + np.arange(NODATA.size).reshape(NODATA.shape) // 640
        mask[0, :9], mask[1, :9] = 0, 255
        write(
            tmp_path / f"masks/{number}.tif",
            mask[None].astype(np.uint8),
            nodata=(0, 255)[number % 2],
        )
    for more in ((), ("--ignore", "3")):
        run(prepare, *argv, *more).output()
        label_map = load_config("c.yaml").data.label_map
        assert {label_map[key] for key in ("0", "255")} == {255}, label_map


def test_faulty_sidecar_masks(tmp_path):
    write(path := tmp_path / "a.tif", image(1), mask=~NODATA, internal=False)
    assert [*names_by_stem(tmp_path)] == ["a"]
    sidecar = tmp_path / "a.tif.msk"
    Image.new("L", (5, 4)).save(sidecar, "TIFF")
    with pytest.raises(UserError, match=f"^{sidecar}: the nodata mask is 5x4, expected 48x40"):
        read_bands(path, data(bands="grey"))
    Image.new("1", (1500, 1000)).save(sidecar, "TIFF")
    with pytest.raises(UserError, match=f"^{sidecar}: 1500x1000 pixels, expected at most 1 mill"):
        read_bands(path, data(bands="grey", max_megapixels=1))
    sidecar.write_bytes(b"II")
    with pytest.raises(UserError, match=f"^{sidecar}: not a readable image"):
        read_bands(path, data(bands="grey"))


def test_compression_that_needs_imagecodecs(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "tifffile"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    kinds = {
        "LZW compression": {"compress": "lzw"},
        "ZSTD compression": {"compress": "zstd"},
        "ADOBE_DEFLATE compression with a predictor": {"compress": "deflate", "predictor": 3},
    }
    for kind, options in kinds.items():
        write(path := tmp_path / "a.tif", image(2, np.float32), **options)
        with pytest.raises(UserError) as error:
            read_bands(path, data(bands=[1, 2], image_range=(0, 100)))
        assert str(error.value).startswith(f"{path}: {kind} needs imagecodecs. Fix: pip install i")
        assert "\n" not in str(error.value)


def test_nodata_from_init_to_prediction(run, train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = image(2, np.float32, -9999)
    for number in range(6):
        shown = np.where(NODATA, -9999, values + number).astype(np.float32)
        write(tmp_path / f"images/{number}.tif", shown, nodata=-9999)
        write(tmp_path / f"more/u{number}.tif", shown + ~NODATA, nodata=-9999)
        (tmp_path / "masks").mkdir(exist_ok=True)
        classes = (values[0] > 50).astype(np.uint8)
        Image.fromarray(classes).save(tmp_path / f"masks/{number}.png")
    run(prepare, "init", "--images", "images", "--masks", "masks", "--unlabeled",
        "more", "--out", "c.yaml").output()  # fmt: skip
    config = load_config("c.yaml")
    assert all(low >= 1 for low, _ in config.data.image_range)
    assert all(0.3 < mean < 0.7 for mean in config.data.mean)

    reader = Reader(config.data)
    sample = read_split_file(config.data.labeled, masks=True).samples[0]
    assert np.array_equal(np.array(reader.image_and_mask(sample)[1]) == 255, NODATA)
    _, ignored = reader.image_and_nodata_mask(
        read_split_file(config.data.unlabeled, masks=False).samples[0]
    )
    assert np.array_equal(np.array(ignored) == 255, NODATA)
    code, out, err = run(check_data, "--config", "c.yaml")
    assert f"{NODATA.mean():.2%}" in next(x for x in out.splitlines() if x.startswith("ignored"))

    overrides = [x for x in TINY if not x.startswith("crop_size")]
    train(SupOnly, ["--config", "c.yaml", "--save-path", "run", "--set", *overrides])
    run(predict, "--checkpoint", "run/best.pth", "--images", "images",
        "--save-path", "out", "--confidence").output()  # fmt: skip
    mask = np.array(Image.open("out/masks/0.png"))
    assert (mask[NODATA] == 255).all() and (mask[~NODATA] < 2).all()
    assert (np.array(Image.open("out/confidence/0.png"))[NODATA] == 0).all()


def test_classes_are_counted_and_shown_where_images_have_data(tmp_path):
    write(tmp_path / "a.tif", image(1), nodata=0)
    write(tmp_path / "m.tif", np.where(NODATA, 0, 1)[None].astype(np.uint8))
    (tmp_path / "list.txt").write_text(f"{tmp_path.name}/a.tif {tmp_path.name}/m.tif\n")
    found = data(root=tmp_path.parent, bands="grey", labeled=tmp_path / "list.txt")
    listed = read_samples(found.labeled, found, masks=True)
    assert class_pixels(listed, found).tolist() == [0, (~NODATA).sum()]
    (sample,) = listed.samples
    assert read_classes(found, [sample]) == {sample.image: {1}}
    (figure,) = figures(CheckedSample(sample), "", Reader(found))
    assert figure.legend[-1][1:] == ("ignored", f"{NODATA.mean():.1%}")
