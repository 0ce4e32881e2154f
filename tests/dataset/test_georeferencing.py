"""Grids of GeoTIFFs, from tags that GDAL writes, and the refusal of a mask on another grid."""

import numpy as np
import pytest

from dataset.georeferencing import refuse_other_grid
from supervised import SupOnly
from tests.own_images import georeference, write_raster
from util.errors import UserError

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
NORTH_UP = rasterio.Affine(0.5, 0, 400000, 0, -0.5, 5800000)
PLACE = {"crs": "EPSG:32633", "transform": NORTH_UP}
LOCAL = "+proj=laea +lat_0=50 +lon_0=9 +datum=WGS84"  # without an EPSG code
SHIFTED = rasterio.Affine(0.5, 0, 400001, 0, -0.5, 5800000)
NEARLY = rasterio.Affine(0.5, 0, 400000.2, 0, -0.5, 5800000)


@pytest.mark.parametrize("how, problem", [
    ({}, ""),
    ({"dtype": "uint16", "count": 5, "BIGTIFF": "YES"}, ""),  # Pillow does not read the pixels
    ({"transform": NEARLY}, ""),
    ({"crs": LOCAL}, ""),
    ({"crs": None, "transform": SHIFTED}, ""),
    ({"transform": rasterio.Affine.identity()}, ""),
    ({"transform": SHIFTED}, "b.tif: 2.0 pixels off "),
    ({"crs": LOCAL, "transform": SHIFTED}, "2.0 pixels off "),
    ({"transform": NORTH_UP @ rasterio.Affine.rotation(90)}, "72.4 pixels off "),
    ({"transform": NORTH_UP @ rasterio.Affine.scale(1, -1)}, "64.0 pixels off "),
    ({"crs": "EPSG:32632"}, "b.tif: another coordinate system than "),
    ({"crs": "EPSG:4326"}, "another coordinate system than "),
])  # fmt: skip
@pytest.mark.parametrize("point", [False, True])
def test_grids_that_gdal_writes(point, how, problem, tmp_path):
    files = [tmp_path / "a.tif", tmp_path / "b.tif"]
    for file, place in zip(files, (PLACE, PLACE | how), strict=True):
        bands = np.ones((place.get("count", 1), 32, 40), place.get("dtype", "uint8"))
        write_raster(file, bands, **place)
    if point:  # coordinates of pixels' centres
        with rasterio.open(files[1], "r+") as file:
            file.update_tags(AREA_OR_POINT="Point")
    if not problem:
        return refuse_other_grid(files)
    with pytest.raises(UserError, match=f"{problem}.*a.tif by georeferencing; expected"):
        refuse_other_grid(files)


def test_files_without_or_with_damaged_tags_pass(tmp_path):
    write_raster(tmp_path / "a.tif", np.ones((1, 8, 8), np.uint8), **PLACE)
    (tmp_path / "b.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:100])
    refuse_other_grid([tmp_path / name for name in ("a.tif", "b.tif", "c.tif", "d.png")])


def test_a_training_refuses_a_mask_of_another_place(toy, training_error, tmp_path):
    for shift in (2, 0):
        georeference(toy.root / f"images/l{shift}.jpg", toy.root / f"masks/l{shift}.png", shift)
    lines = toy.path("labeled").read_text().splitlines()
    lines[::2] = ["images/l0.tif masks/l0.tif", "images/l2.tif masks/l2.tif"]
    toy.write_list("labeled", lines)
    err = training_error(SupOnly, toy.argv(tmp_path / "run"))
    assert "labeled.txt line 3: " in err and "masks/l2.tif: 2.0 pixels off " in err
    assert "others" not in err
