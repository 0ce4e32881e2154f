"""Mask files of any kind: reading, by any library, and errors."""

import numpy as np
import pytest
from PIL import Image

from dataset.bands import bands_of, read_bands
from dataset.file_content import read_content
from dataset.mask_files import CLEAR, LabelLookup, open_mask
from tests.bands import data as data_of
from tests.bands import png
from tests.own_images import write_raster
from tools.prepare.own.masks import inspect_mask
from util.errors import UserError

tifffile = pytest.importorskip("tifffile")
MASK = np.array([[0, 0, 1, 1, 2]] * 4, np.uint8)


def data(**keys):
    return data_of(classes=["a", "b", "c"], **keys)


def planar(path, bands, **how):
    """Write bands `[N, H, W]` as planes, as GDAL does with INTERLEAVE=BAND."""
    if len(bands) > 1:
        tifffile.imwrite(path, bands, planarconfig="separate", photometric="minisblack", **how)
        return
    pytest.importorskip("rasterio")
    write_raster(path, bands, interleave="band")


def colours(mask):
    return np.array([[0, 0, 0], [200, 0, 9], [0, 99, 0]], np.uint8)[mask]


def deep_colours(path, kind, step):
    tifffile.imwrite(path, colours(MASK).astype(kind) * step, photometric="rgb")


def save(values, path, *kind, **how):
    Image.fromarray(values).save(path, *kind, **how)


COLOURS = {"0,0,0": 0, "200,0,9": 1, "0,99,0": 2}
READ = {  # suffix, how it is written, label map
    "planar uint16": ("tif", lambda p: planar(p, MASK[None].astype(np.uint16)), None),
    "planar int16": ("tif", lambda p: planar(p, MASK[None].astype(np.int16)), None),
    "int64": ("tif", lambda p: tifffile.imwrite(p, MASK.astype(np.int64)), None),
    "float32": ("tif", lambda p: tifffile.imwrite(p, MASK.astype(np.float32)), None),
    "float64": ("tif", lambda p: tifffile.imwrite(p, MASK.astype(np.float64)), None),
    "planar colours": ("tif", lambda p: planar(p, colours(MASK).transpose(2, 0, 1)), COLOURS),
    "colours of 16 bits": ("tif", lambda p: deep_colours(p, np.uint16, 257), COLOURS),
    "colours as 64 bits": ("tif", lambda p: deep_colours(p, np.int64, 1), COLOURS),
    "lossless webp": ("webp", lambda p: Image.fromarray(colours(MASK)).save(p, lossless=True),
                      COLOURS),
}  # fmt: skip


@pytest.mark.parametrize("kind", READ)
def test_masks_that_hold_whole_numbers_are_read(kind, tmp_path):
    suffix, write, label_map = READ[kind]
    write(path := tmp_path / f"m.{suffix}")
    labels = LabelLookup(data(label_map=label_map))
    assert np.array_equal(open_mask(path, labels), MASK)
    seen = inspect_mask(path, 1)
    assert seen.in_colour == (label_map is not None) and seen.size == (5, 4)
    assert sorted(seen.pixels.values()) == [4, 8, 8]


def frames(path, **how):
    first, second = (Image.fromarray(MASK + i) for i in (0, 1))
    first.save(path, save_all=True, append_images=[second], **how)


def pages(path, kind):
    tifffile.imwrite(path, np.stack([MASK, 1 - MASK, MASK]).astype(kind), photometric="minisblack")


def two_sizes(path):
    with tifffile.TiffWriter(path) as file:
        file.write(MASK.astype(np.int64))
        file.write(MASK[:2].astype(np.int64))


REFUSED = {  # suffix, how it is written, message
    "pages": ("tif", lambda p: pages(p, np.uint8), "holds 3 images, expected one"),
    "deep pages": ("tif", lambda p: pages(p, np.int64), "3 pages of 5x4.*each page"),
    "pages of two sizes": ("tif", two_sizes, "holds 2 images, expected one"),
    "animated gif": ("gif", frames, "holds 2 images, expected one"),
    "animated png": ("png", frames, "holds 2 images, expected one"),
    "animated webp": ("webp", lambda p: frames(p, lossless=True), "holds 2 images, expected one"),
    "jpeg": ("jpg", lambda p: save(MASK, p), "lossy compression"),
    "jpeg named png": ("png", lambda p: save(MASK, p, "JPEG"), "lossy"),
    "jpeg in tiff": ("tif", lambda p: save(MASK, p, compression="jpeg"), "lossy compression"),
    "webp": ("webp", lambda p: save(colours(MASK), p), "lossy compression"),
    "webp with alpha": ("webp", lambda p: save(np.dstack([colours(MASK), MASK * 99]), p), "lossy"),
    "halves": ("tif", lambda p: tifffile.imwrite(p, MASK / 2), "such as 0.5 .*whole numbers. Fix"),
    "nan": ("tif", lambda p: tifffile.imwrite(p, MASK / 0.0), "such as nan .*whole numbers. Fix"),
    "negative": ("tif", lambda p: tifffile.imwrite(p, MASK - 1.0), "values -1 to 1, expected 0"),
    "infinite halves": ("tif", lambda p: tifffile.imwrite(p, np.array([[0, np.inf]], "f2")),
                        "values 0 to inf"),
    "white is zero": ("tif", lambda p: tifffile.imwrite(p, MASK, photometric="miniswhite"),
                      "stores white as 0"),
    "signed bytes": ("tif", lambda p: tifffile.imwrite(p, MASK.astype(np.int8) - 1),
                     "values -1 to 1, expected 0"),
    "five bands": ("tif", lambda p: tifffile.imwrite(p, np.dstack([MASK] * 5),
                                                     planarconfig="contig"), "5 bands.*expected"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_mask_is_refused_whoever_opens_it(kind, tmp_path):
    suffix, write, message = REFUSED[kind]
    write(path := tmp_path / f"m.{suffix}")
    looks = [lambda: open_mask(path, LabelLookup(data())), lambda: inspect_mask(path, 1)]
    if kind.startswith("animated"):
        looks.append(lambda: read_bands(path, data()))
    for look in looks:
        with pytest.raises(UserError, match=message) as error:
            look()
        assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_grey_of_16_bits_with_alpha(tmp_path):
    grey = MASK.astype(np.uint16) * 300
    path = tmp_path / "a.png"
    path.write_bytes(png(np.dstack([grey, np.full_like(grey, 65535)])))
    assert bands_of(path).selection == "grey"
    for bands, count in (("grey", 1), ("rgb", 3)):
        read = read_bands(path, data(bands=bands, image_range=(0, 600)))[0]
        assert np.allclose(read, (MASK / 2)[..., None].repeat(count, 2))
    labels = LabelLookup(data(label_map={0: 0, 300: 1, 600: 0}))
    assert np.array_equal(open_mask(path, labels), MASK % 2)


def with_palette(alpha):
    image = Image.fromarray(MASK)
    image.putpalette([0, 0, 0, 200, 0, 9, 0, 99, 0])
    image.info["transparency"] = alpha
    return image


TRANSPARENT = {  # of class 2: the picture, and whether it is in colour
    "rgba": (Image.fromarray(np.dstack([colours(MASK), 255 * (MASK < 2)]).astype(np.uint8)), True),
    "grey with alpha": (Image.fromarray(np.dstack([MASK, MASK < 2]).astype(np.uint8)), False),
    "palette": (with_palette(2), False),
    "alpha of a palette": (with_palette(b"\xff\x80\0"), False),
    "palette in colour": (with_palette(b"\xff\x80\0"), True),
}


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_transparent_pixels_of_masks_need_a_meaning(kind, tmp_path):
    picture, in_colour = TRANSPARENT[kind]
    picture.save(path := tmp_path / "m.png")
    keys = list(COLOURS) if in_colour else [0, 1, 2]
    label_map = dict(zip(keys, range(3), strict=True))
    with pytest.raises(UserError, match=r"m.png: found 4 transparent pixels. Fix: add"):
        open_mask(path, LabelLookup(data(label_map=label_map)))
    for label, expected in (("ignore", 255), ("b", 1)):
        labels = LabelLookup(data(label_map=label_map | {"transparent": label}))
        assert np.array_equal(open_mask(path, labels), np.where(MASK == 2, expected, MASK))
    assert CLEAR in inspect_mask(path, 1).pixels


def test_transparent_pixels_of_one_bit(tmp_path):
    path = tmp_path / "m.png"
    Image.fromarray(MASK > 0).save(path, transparency=1)
    assert np.array_equal(read_content(path).pixels, MASK > 0)
    labels = LabelLookup(data(label_map={0: 0, 1: 1, "transparent": 2}))
    assert np.array_equal(open_mask(path, labels), np.where(MASK > 0, 2, 0))


@pytest.mark.parametrize("name", ["grey.png", "grey.tif", "deep.tif", "planes.tif", "colour.gif"])
@pytest.mark.parametrize("numbers", [(), (1,)])
@pytest.mark.filterwarnings("error")  # Python warns of a file that nobody closed
def test_files_are_closed_after_reading(name, numbers, tmp_path):
    path = tmp_path / name
    if name == "planes.tif":
        planar(path, np.zeros((3, 4, 5), np.uint16))
    else:
        Image.new("F" if name == "deep.tif" else "L", (5, 4)).save(path)
    assert read_content(path, numbers=numbers).size == (5, 4)
