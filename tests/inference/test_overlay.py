"""Colours of classes, overlays, legends, mask encodings, and tables of images."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from dataset.mask_files import LabelLookup, key_of, open_mask
from inference.mask_encoding import MaskEncoding
from inference.output_folder import ImageTable
from inference.overlay import class_shares, colour_mask, mask_legend, overlay, with_legend
from tests.conftest import REPOSITORY
from util.colours import IGNORE_COLOUR, background, cielab, distinct_colours, palette
from util.config.data import Data
from util.config.loading import load_config
from util.errors import UserError, printable
from util.io import csv_rows, csv_text


def data(**more):
    names = ["background", "tree", "road"]
    return Data(**{"name": "x", "root": ".", "classes": names, "val": "v.txt"} | more)


def distances(colours):
    lab = cielab(np.asarray(colours))
    apart = np.linalg.norm(lab[:, None] - lab, axis=-1)
    return apart[np.triu_indices(len(lab), 1)]


def test_cielab():
    """Compare with values of the CIE's formulae for sRGB's corners under D65."""
    corners = np.array([[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0]])
    expected = [[100, 0, 0], [53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86],
                [0, 0, 0]]  # fmt: skip
    np.testing.assert_allclose(cielab(corners), expected, atol=0.05)


def test_colours_can_be_told_apart():
    assert distances([*distinct_colours(59), IGNORE_COLOUR, (0, 0, 0)]).min() > 20
    assert distances(distinct_colours(254)).min() > 10
    assert distinct_colours(59) == distinct_colours(254)[:59]  # whatever the number of classes


def to_deuteranope(colours):
    """Simulate deuteranopia: Machado et al., IEEE TVCG 2009, severity 1, in linear RGB."""
    matrix = np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                       [-0.011820, 0.042940, 0.968881]])  # fmt: skip
    share = np.array(colours) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    seen = (linear @ matrix.T).clip(0, 1)
    return 255 * np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("seen_by", [np.array, to_deuteranope])
def test_the_first_colours_suit_the_colour_blind_and_vegetation(seen_by):
    backgrounds = [(85, 110, 50), (60, 85, 40), (128, 128, 128), (90, 90, 95), IGNORE_COLOUR]
    assert distances(seen_by(distinct_colours(8))).min() > 25
    for background_colour in backgrounds:
        for colour in distinct_colours(8):
            assert distances(seen_by([colour, background_colour])).min() > 25
    assert distances(seen_by(distinct_colours(2))).min() > 100


def test_the_datasets_own_colours_come_first():
    own = [(1, 2, 3), (4, 5, 6), (7, 8, 9)]
    assert palette(data(palette=own)) == own
    assert palette(data()) == [(0, 0, 0), *distinct_colours(2)]
    assert palette(data(classes=["a", "b", "c"])) == [*distinct_colours(3)]
    voc = load_config(REPOSITORY / "configs/pascal.yaml").data.palette
    for label, colour in enumerate(voc):  # bits of the class, spread over the channels
        bits = [[label >> (3 * bit + channel) & 1 for bit in range(8)] for channel in range(3)]
        assert [sum(b << (7 - i) for i, b in enumerate(channel)) for channel in bits] == [*colour]


MASK = np.array([[0, 0, 1, 1], [0, 2, 255, 254]], np.uint8)


def test_an_overlay_leaves_the_background_as_it_is():
    image = Image.new("RGB", (20, 10), (100, 100, 100))
    mask = MASK.repeat(5, 0).repeat(5, 1)
    own = [(10, 10, 10), (200, 0, 0), (0, 200, 0)]
    found = np.array(overlay(image, mask, data(palette=own))).astype(int)
    assert (found[mask == 0] == 100).all()
    colours = {1: own[1], 2: own[2], 255: IGNORE_COLOUR, 254: (255, 0, 255)}
    for (row, column), index in np.ndenumerate(MASK):
        if index:
            inside = found[5 * row + 2, 5 * column + 2]
            assert (abs(inside - (np.array(colours[index]) + 100) / 2) <= 1).all()
    assert (found[2, 10] == own[1]).all()  # at the border of its class
    found = np.array(overlay(image, mask, data(palette=own, classes=["a", "b", "c"])))
    assert (found[mask == 0] < 60).all()  # no class is the rest


@pytest.mark.parametrize(
    "names, rest",
    [(["tree", "_background_"], 1), (["Rest", "road"], 0), (["other", "background"], 1),
     (["tree", "road"], None)],
)  # fmt: skip
def test_what_is_called_background(names, rest):
    assert background(names) == rest


def test_an_index_png_keeps_indices_and_colours(tmp_path):
    own = [(10, 10, 10), (200, 0, 0), (0, 200, 0)]
    colour_mask(MASK, data(palette=own)).save(tmp_path / "m.png")
    found = Image.open(tmp_path / "m.png")
    assert found.mode == "P" and (np.array(found) == MASK).all()
    assert found.getpalette()[:9] == sum(map(list, own), [])
    assert tuple(found.getpalette()[765:]) == IGNORE_COLOUR


def test_a_legend_names_what_the_mask_holds():
    own = data(palette=[(10, 10, 10), (200, 0, 0), (0, 200, 0)])
    names = [(name, share) for _, name, share in class_shares(MASK, own)]
    assert names == [("background", 3 / 8), ("tree", 2 / 8), ("road", 1 / 8), ("no class", 1 / 8),
                     ("ignored", 1 / 8)]  # fmt: skip
    assert mask_legend(MASK, own)[0] == ((10, 10, 10), "background 37.5%")
    for width in (40, 700):
        found = with_legend(Image.new("RGB", (width, 20), "blue"), mask_legend(MASK, own))
        assert found.width >= width and (np.array(found)[:20, :width] == [0, 0, 255]).all()
        strip = np.array(found)[20:].reshape(-1, 3)
        for colour in [*own.palette, IGNORE_COLOUR, (255, 0, 255)]:
            assert (strip == colour).all(1).sum() >= 100, colour


MAPS = {
    "indices": {},
    "reduced": {"reduce_zero_label": True},
    "values": {"label_map": {0: 0, 128: 1, 255: 2, 7: "ignore", 9: 1}},
    "16 bits": {"label_map": {0: 0, 300: 1, 65535: 2, "other": "ignore"}},
    "colours": {"label_map": {"0,0,0": 0, "1,2,3": 1, "255,254,253": 2, "other": 0}},
}


FIRST = {"indices": 1, "reduced": 2, "values": 128, "16 bits": 300, "colours": [1, 2, 3]}
IGNORED = {"indices": 255, "reduced": 255, "values": 7, "16 bits": 255, "colours": [224, 224, 192]}


@pytest.mark.parametrize("form", MAPS)
@pytest.mark.parametrize("ignoring", [False, True])
def test_encoded_masks_are_read_as_the_same_classes(form, ignoring, tmp_path):
    own, path = data(**MAPS[form]), tmp_path / "mask.png"
    classes = [0, 1, 2, *[255] * ignoring]
    mask = np.random.default_rng(0).choice(np.array(classes, np.uint8), (7, 9))
    encoding = MaskEncoding(own, ignoring)
    encoding.mask(mask).save(path)
    stored = Image.open(path)
    assert (np.array(stored)[mask == 1] == FIRST[form]).all()
    assert (np.array(stored)[mask == 255] == IGNORED[form]).all()
    if stored.mode == "P":
        assert (np.array(stored.convert("RGB"))[mask == 2] == palette(own)[2]).all()
    if own.label_map and ignoring:
        key = key_of(encoding.ignored, encoding.in_colour)
        own = data(label_map=own.label_map | {key: "ignore"})
    assert (np.array(open_mask(path, LabelLookup(own))) == mask).all()


def test_a_class_without_a_value_is_named():
    with pytest.raises(UserError, match="data.label_map: names no value of class 'road'"):
        MaskEncoding(data(label_map={0: 0, 1: 1, "other": 2}))


def test_a_table_of_images(tmp_path):
    path, columns = tmp_path / "new/areas.csv", ["sky, blue", "tree"]
    name = 'a "b"\udcff'
    table = ImageTable(path, columns)
    table.start([name])
    table.add(name, [2, 4])
    for values in ([0, 5], [5, 0.5]):
        table.start(["c"])
        table.add("c", values)
    expected = [["image", *columns], ['a "b"\\udcff', "2", "4"], ["c", "5", "0.5"]]
    assert table.rows() == {name: values for name, *values in expected[1:]}
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == expected
    before = path.read_text()
    with pytest.raises(UserError, match="exists with other columns"):
        ImageTable(path, ["sky", "tree"]).start(["c"])
    assert path.read_text() == before
    with pytest.raises(UserError, match="Not a directory"):
        ImageTable(path / "no/areas.csv", columns).start([])


def test_torn_lines_of_a_table_are_dropped(tmp_path):
    table = ImageTable(tmp_path / "areas.csv", ["sky", "tree"])
    table.path.write_text("image,sky,tree\na,1,2\n\nb,1\nc,1b,1,2\nd,1,2\nd,3,4\ne,1,2")
    assert table.rows() == {"a": ["1", "2"], "d": ["3", "4"]}
    table.start(["f"])
    assert table.path.read_text() == "image,sky,tree\na,1,2\nd,3,4\n"
    with table.path.open("ab") as file:
        file.write("ü".encode()[:1])  # torn inside a character
    assert [*table.rows()] == ["a", "d"]


FORMULAS = ["=1+1", "+1+1", "-1+1", "@x", "\t=1", "\r=1", "'=1+1", '=HYPERLINK("x")']


def test_no_name_is_a_formula_in_a_table(tmp_path):
    texts = [*FORMULAS, "'a", "a=1", ""]
    written = csv_text([[text, -1, "-0.500000"] for text in texts])
    for line in csv.reader(io.StringIO(written, newline="")):
        assert line[0][:1] not in tuple("=+-@\t\r") and line[1:] == ["-1", "-0.500000"]
    found = csv_rows(io.StringIO(written, newline=""))
    assert [line[0] for line in found] == [*map(printable, texts)]

    tiles = ["-73.98_40.75.png", "+7/-3.jpg"]  # which other programs look up
    assert csv_text([tiles]) == f"{','.join(tiles)}\n"

    path = tmp_path / "areas.csv"
    for _ in range(2):  # the second time, existing lines are replaced
        table = ImageTable(path, ["-sky"])
        table.start(FORMULAS)
        for name in FORMULAS:
            table.add(name, [0])
    assert [*table.rows()] == [*map(printable, FORMULAS)]
