"""The HTML page of check_data: order, highlighted files, pictures."""

import base64
import io
import re
import shutil
from html import unescape

import numpy as np
import pytest
from PIL import Image

from dataset.reader import Reader
from tests.bands import png
from tests.conftest import write_sample
from tests.own_images import exif_with_orientation
from tools.check_data import __main__ as check_data
from tools.check_data.image_stats import band_facts, image_facts
from tools.check_data.inspect import inspect
from tools.check_data.outliers import highlights
from tools.check_data.problems import TITLES, problems
from tools.check_data.thumbnails import FULL, by_brightness, figures, rarest
from util.colours import distinct_colours
from util.config.loading import load_config


@pytest.fixture
def page(toy, tmp_path, run):
    def write(*more):
        path = tmp_path / "report.html"
        run(check_data, "--config", toy.config, "--html", path, *more)
        return path.read_text()

    return write


def pictures(text):
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def add(toy, kind, name, image=None, mask=None, **save):
    """Add a sample to a split file, with the given image and mask."""
    line = write_sample(toy.root, name)
    if image is not None:
        image.save(toy.root / f"images/{name}.jpg", **save)
    if mask is not None:
        Image.fromarray(mask).save(toy.root / f"masks/{name}.png")
    toy.write_list(kind, [*toy.path(kind).read_text().splitlines(), line])


def test_page_is_escaped_and_needs_nothing_else(toy, page):
    toy.change_data(classes=["<sky>", "tree & bush", "road"])
    add(toy, "labeled", "<b>bold<script>")
    add(toy, "labeled", "x'\"", mask=np.full((44, 52), 99, np.uint8))
    text = page()
    assert page() == text  # overwrites the earlier report
    for tag in ("<script", "<b>bold", "<sky>", "<link", "<iframe"):
        assert tag not in text
    assert not re.search(r"(src|href)=\"(?!data:image/(jpeg|svg.xml);base64,)", text)
    assert "url(" not in text and "http" not in text
    plain = unescape(text)
    assert "<b>bold<script>.jpg" in plain and "tree & bush" in plain
    assert "mask value 99 (2288 pixels) is no class" in plain


def test_page_of_pictures_then_tables(toy, page):
    """Show pictures at their own size with a legend, and each table once."""
    text = page()
    assert text.rindex("image/jpeg") < text.index("<table")
    assert text.count("image/svg+xml") == 3, "a histogram of each band"
    assert text.count("images by class") == 2, "once for each list with masks"
    tables = re.findall(r"<table>(.*?)</table>", text, re.DOTALL)
    assert len(tables) == 3  # classes, images, bands of all splits; values are class indices
    assert all(kind in tables[0] for kind in ("labeled", "val")) and tables[0].count("tree") == 1
    assert all(part in tables[1] for part in ("60x40", "RGB", "Bits", "EXIF", "grey"))
    found = pictures(text)
    assert len(found) == 2 * 3 + 5 + 2 * 3
    assert text.count('<label class="zoom"><input type="checkbox"') == len(found)
    image, overlay = found[:2]
    assert image.size == overlay.size == (52, 44)
    row = 22  # a tree; its colour is half opaque
    tree = (np.asarray(image, int)[row, 20] + distinct_colours(2)[1]) / 2
    np.testing.assert_allclose(np.asarray(overlay, int)[row, 20], tree, atol=40)
    figure = text[text.index("<figure>") : text.index("</figure>")]
    assert "sky " in figure and "ignored 2.3%" in figure and figure.count("swatch") == 4


@pytest.mark.parametrize(
    ("size", "value", "heading"),
    [((9, 8), 0, None), ((52, 44), 255, "val: from dark to bright")],  # wrong size, all ignored
)
def test_splits_without_a_sample_by_class(size, value, heading, toy, page):
    for i in range(3):
        write_sample(toy.root, f"v{i}")
        Image.new("L", size, value).save(toy.root / f"masks/v{i}.png")
    text = page()
    assert re.findall("<h2>(val.*?)</h2>", text) == ([heading] if heading else [])
    assert "<h2>labeled: images by class" in text


def test_mapped_values_and_large_pictures(toy, page):
    size = (2 * FULL, 40)
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    add(toy, "val", "wide", Image.fromarray(noise), np.zeros((size[1], size[0]), np.uint8))
    text = page("--set", "data.label_map={0: sky, 1: road, 2: tree, 255: ignore}")
    assert max(found.width for found in pictures(text)) == FULL
    assert "shown at 1/2.0 of its size" in text
    values = re.findall(r"<table>(.*?)</table>", text, re.DOTALL)[3]
    assert "2 = tree" in values and "1 = road" in values and "0 = sky" not in values


def test_the_rarest_classes_come_first(toy):
    masks = np.zeros((6, 44, 52), np.uint8)
    masks[0, :10] = 1
    masks[1, :20] = 1
    masks[2, :5] = 2
    masks[3, :2] = 2
    masks[4, :30] = 1
    for i, mask in enumerate(masks):
        add(toy, "val", f"m{i}", mask=mask)
    toy.write_list("val", toy.path("val").read_text().splitlines()[3:])
    config = load_config(toy.config)
    splits = inspect(config)
    names = [item.sample.image[-6:-4] for item, _ in rarest(splits[2], config.data.classes, 5)]
    assert names == ["m2", "m4", "m5", "m3", "m1"]  # road, tree, sky, and again road, tree
    assert len(list(rarest(splits[2], config.data.classes, 99))) == 6
    assert not list(rarest(splits[2], config.data.classes, 0))
    grey = [item.facts.brightness for item in by_brightness(splits[1], 3)]
    every = [item.facts.brightness for item in splits[1].items]
    assert grey == sorted(grey) and [grey[0], grey[2]] == [min(every), max(every)]


def planted(toy):
    """Add suspicious samples; return the samples by the expected kind of highlight."""
    rng = np.random.default_rng(0)

    def noise(low, high, *shape):
        return Image.fromarray(rng.integers(low, high, shape or (44, 52, 3), np.uint8))

    for i in range(20):
        add(toy, "labeled", f"plain{i}", noise(100, 150))
    add(toy, "labeled", "size", mask=np.zeros((9, 8), np.uint8))
    add(toy, "labeled", "value", mask=np.full((44, 52), 9, np.uint8))
    add(toy, "labeled", "colour", mask=np.zeros((44, 52, 3), np.uint8))
    add(toy, "labeled", "empty", mask=np.full((44, 52), 255, np.uint8))
    add(toy, "labeled", "black", Image.new("RGB", (52, 44)))
    add(toy, "labeled", "night", noise(0, 30))
    add(toy, "labeled", "grey", noise(100, 150, 44, 52))
    add(toy, "labeled", "turned", noise(100, 150), exif=exif_with_orientation(3))
    add(toy, "labeled", "again")
    add(toy, "val", "leak")
    add(toy, "val", "broken")
    shutil.copy(toy.root / "images/plain1.jpg", toy.root / "images/again.jpg")
    shutil.copy(toy.root / "images/plain0.jpg", toy.root / "images/leak.jpg")
    (toy.root / "images/broken.jpg").write_bytes(b"no image")
    return [(TITLES["size"], "size"), (TITLES["mask"], "value"), (TITLES["mask"], "colour"),
            (TITLES["duplicate"], "again"), (TITLES["leak"], "leak"),
            (TITLES["empty mask"], "empty"),
            ("shows nothing", "black"), ("another mode or depth than most", "grey"),
            ("stored turned or mirrored", "turned"),
            (TITLES["maybe turned"], "turned"),
            ("much darker or brighter than most", "night")]  # fmt: skip


def test_suspicious_files_are_found_and_shown(toy, page):
    expected = planted(toy)
    splits = inspect(config := load_config(toy.config))
    found = highlights(splits, problems(splits, config), ["red", "green", "blue"])
    found = [(s.kind, s.item.sample.image[7:-4]) for s in found]
    assert sorted(found) == sorted(expected)
    text = page()
    section = text[text.index("Worth a look") : text.index("<h2>labeled")]
    assert section.count("<figure>") == len(expected)
    for kind, name in expected:
        assert f"<b>images/{name}.jpg</b> {kind}" in unescape(section), name
    assert "no class 100.0%" in section and "values that are no class (one of 2)" in section
    assert section.index("images/size.jpg") < section.index("images/night.jpg")
    begin = section.rindex("<figure>", 0, section.index("images/leak.jpg"))
    shown = pictures(section[begin : section.index("</figure>", begin)])
    every = {item.sample.image: item for listed in splits for item in listed.items}
    for picture, name in zip(shown, ("leak", "plain0"), strict=True):  # side by side
        (figure,) = figures(every[f"images/{name}.jpg"], "", Reader(config.data))
        difference = np.asarray(picture, int) - np.asarray(figure.views[-1], int)
        assert abs(difference).mean() < 20, "JPEG of noise"


@pytest.mark.parametrize("void", [None, "some", "all"])
def test_facts_of_8_bits_are_those_of_floats(void):
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    image[..., 1] = 255
    image[:9, :9] = 0
    if void is None:
        image[..., 1] = 7
    masked = void and np.full((40, 50), void == "all") | (np.arange(2000).reshape(40, 50) % 50 < 9)
    found, expected = band_facts(image, masked), band_facts(image / 255, masked)
    for name in ("steps", "ends", "constant"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
    np.testing.assert_allclose(found.sums, expected.sums, rtol=1e-12)
    assert found.constant.tolist() == ([1, 1, 1] if void == "all" else [0, 1, 0])


def test_facts_of_image_files(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(png(np.full((4, 4, 3), 0x8080, np.uint16)))
    facts = image_facts(path, Image.open(path).convert("RGB"))
    assert facts == ("4x4", "RGB", 16, 1, "square", 128, 0)
    for image, expected in (
        (Image.fromarray(np.zeros((2, 3), np.uint16)), ("I;16", 16, 1, "landscape")),
        (Image.new("1", (2, 3)), ("1", 1, 1, "portrait")),
        (Image.new("LA", (2, 3)), ("LA", 8, 1, "portrait")),
    ):
        image.save(path)
        assert image_facts(path, image.convert("RGB"))[1:5] == expected
    half = np.zeros((2, 2, 3), np.uint8)
    half[0] = 200
    assert image_facts(path, Image.fromarray(half))[5:] == (100, 100)
