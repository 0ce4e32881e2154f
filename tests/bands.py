"""Images of any depth and number of bands."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from util.config.data import Data

RNG = np.random.default_rng(0)


def data(**keys):
    """Return a `data` section with these keys."""
    return Data(**{"name": "d", "root": ".", "classes": ["a", "b"], "val": "v"} | keys)


def png(values):
    """Return the bytes of a PNG of 16 bits: grey and alpha, or colour."""
    h, w, channels = values.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    head = struct.pack(">IIBBBBB", w, h, 16, {2: 4, 3: 2}[channels], 0, 0, 0)
    parts = (b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def values(count, kind=np.uint8, h=5, w=7):
    top = 256 if kind == np.uint8 else 65536
    return RNG.integers(0, top, (h, w, count) if count else (h, w)).astype(kind)


def write_tiff(path, array, **how):
    pytest.importorskip("tifffile").imwrite(path, array, photometric="minisblack", **how)


def banded(toy, bands, **keys):
    """The toy dataset with TIFFs of six bands of 16 bits, or in grey."""
    for path in (toy.root / "images").iterdir():
        image = np.asarray(Image.open(path)).astype(np.uint16)
        path.unlink()
        if bands == "grey":
            Image.fromarray(image[..., 0].astype(np.uint8)).save(path.with_suffix(".png"))
        else:
            six = np.concatenate([image * 9, image], axis=2)
            write_tiff(path.with_suffix(".tif"), six, planarconfig="contig")
    suffix = ".png" if bands == "grey" else ".tif"
    for kind in ("labeled", "unlabeled", "val"):
        text = toy.path(kind).read_text()
        toy.path(kind).write_text(text.replace(".jpg", suffix))
    toy.change_data(bands=bands, **keys)
