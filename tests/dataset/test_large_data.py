"""What grows with the number or the size of files: memory, opened files, questions to the disk."""

import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from dataset import image_files, reader
from dataset.bands import read_bands
from dataset.class_frequency import class_pixels
from dataset.image_files import decoding_threads
from dataset.mask_files import read_mask
from dataset.mask_kinds import value_colours
from dataset.samples import Origin
from dataset.split_files import read_split_file, scan_split_file
from tests.bands import data, values, write_tiff
from tests.own_images import exif_with_orientation, save_image, with_palette
from util.errors import UserError


def test_masks_share_their_colours(tmp_path):
    for number in range(6):
        save_image(np.full((4, 4), number, np.uint8), tmp_path / f"grey{number}.png")
        mask = with_palette(np.full((4, 4), number, np.uint8), np.full((256, 3), number // 3))
        save_image(mask, tmp_path / f"palette{number}.png")
    masks = [read_mask(path, 1) for path in sorted(tmp_path.iterdir())]
    colours = [value_colours(mask, [0]) for mask in masks]
    assert len({id(one) for one in colours}) == 3
    assert colours[0] == {value: value * 0x010101 for value in range(256)}
    assert colours[-1] == dict.fromkeys(range(256), 0x010101)


@pytest.mark.parametrize("side, expected", [(100, 12), (4000, 12), (10_000, 2), (30_000, 1)])
def test_few_threads_decode_large_images(side, expected, monkeypatch):
    def size(path):
        opened.append(path)
        if path.stem == "1":
            raise UserError("damaged")
        return (side, side) if path.stem == "7" else (10, 10)

    opened = []
    monkeypatch.setattr(image_files, "image_size", size)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert decoding_threads([Path(f"{number}.png") for number in range(9)]) == expected
    decoding_threads([Path("a.png")] * 1000)
    assert decoding_threads([]) == 12 and len(opened) <= 9 + 64


def test_a_tiff_is_opened_twice_to_be_read(tmp_path, monkeypatch):
    def counted(function):
        def call(*args, **kwargs):
            opened.append(args)
            return function(*args, **kwargs)

        return call

    opened = []
    tifffile = pytest.importorskip("tifffile")
    array = values(8)
    write_tiff(tmp_path / "a.tif", array, planarconfig="contig", extratags=[(274, 3, 1, 6, True)])
    monkeypatch.setattr(tifffile, "TiffFile", counted(tifffile.TiffFile))
    monkeypatch.setattr(PIL.Image, "open", counted(PIL.Image.open))
    pixels, _ = read_bands(tmp_path / "a.tif", data(bands=[*range(1, 9)]))
    assert np.array_equal(pixels, np.rot90(array, -1))
    assert len(opened) == 2


def test_the_size_in_a_refusal_is_that_of_the_turned_tiff(tmp_path):
    for count in (2, 8):
        array = np.zeros((1000, 1001, count), np.uint8)
        turn = [(274, 3, 1, 6, True)]
        write_tiff(tmp_path / "a.tif", array, planarconfig="contig", extratags=turn)
        with pytest.raises(UserError, match="a.tif: 1000x1001 pixels, expected at most 1 mill"):
            read_bands(tmp_path / "a.tif", data(bands=[1], max_megapixels=1))


def test_names_with_accents_are_looked_up_in_one_listing(tmp_path, monkeypatch):
    def refuse(path):
        raise AssertionError(f"asked for {path}")

    folder = tmp_path / "\u00fcbung"
    folder.mkdir()
    for number in range(100):
        (folder / f"{number}.png").touch()
    # Both forms of one name, which are two files on Linux.
    for name in ("\u00e9.png", "e\u0301.png"):
        (folder / name).touch()
    names = [*(f"{number}.png" for number in range(100)), "\u00e9.png", "e\u0301.png"]
    lines = [f"{folder.name}/{name} {folder.name}//{name}" for name in names]
    (tmp_path / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setattr(os.path, "exists", refuse)
    samples, faults = scan_split_file(Origin(tmp_path / "list.txt", tmp_path), True, None)
    assert not faults
    assert [f"{sample.image} {sample.mask}" for sample in samples] == lines


def test_class_pixels_are_counted_without_the_images_that_have_data(tmp_path, monkeypatch):
    pytest.importorskip("tifffile")

    def read(files, config):
        decoded.extend(file.name for file in files)
        return original(files, config)

    decoded, original = [], reader.read_dates
    shape = (5, 7)
    for name in ("a.png", "b.jpg", "c.png", "d.tif", "e.png"):
        save_image(
            np.full((*shape, 3), 9, np.uint8), tmp_path / name, exif=exif_with_orientation(6)
        )
        save_image(np.eye(7, 5, dtype=np.uint8), tmp_path / f"mask/{name}.png")
    sidecar = np.full(shape, 255, np.uint8)
    sidecar[0] = 0
    save_image(sidecar, tmp_path / "c.png.msk", format="TIFF")
    (tmp_path / "d.tif").rename(tmp_path / "d.png")
    lines = [f"{name} mask/{name}.png" for name in ("a.png", "b.jpg", "c.png")]
    lines += ["d.png mask/d.tif.png", "e.png mask/e.png.png"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    split = read_split_file(tmp_path / "list.txt", masks=True)
    samples = [s._replace(origin=Origin(s.origin.path, tmp_path)) for s in split.samples]
    images = reader.Reader(data())
    expected = sum(np.array(images.image_and_mask(s)[1].histogram()) for s in samples)
    monkeypatch.setattr(reader, "read_dates", read)
    found = class_pixels(split._replace(samples=samples), data())
    assert found.tolist() == expected[:2].tolist() and sum(found) == 5 * 35 - 7
    assert sorted(decoded) == ["c.png", "d.png"]
