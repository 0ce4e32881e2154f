"""Images to measure on: generated photos, those of a folder, or the config's own lists."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dataset.image_files import SUFFIXES, image_size
from util.errors import UserError

SIZE = (500, 375)
COUNT = 48
CLASSES = 21


def data_section(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return what the options change in the config's data section; files are written to `root`."""
    return {} if options.own else make_dataset(root, options.images)


def make_dataset(root: Path, images: Path | None, count: int = COUNT) -> dict[str, Any]:
    """Write a dataset's folder and lists: half of the images labelled, four of these to validate
    on; returns the config's data section.  Raises `UserError` for a folder without images."""
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    rng = np.random.default_rng(0)
    if images:
        found = sorted(path for path in images.glob("*") if path.suffix.lower() in SUFFIXES)
        if len(found) < 16:
            raise UserError(f"--images {images}: found {len(found)} images, expected at least 16")
        for path in found:
            (root / "images" / path.name).symlink_to(path.resolve())
    else:
        for i in range(count):
            _photo(rng).save(root / f"images/{i}.jpg", quality=90)
    lines = []
    for path in sorted((root / "images").iterdir()):
        mask = Image.fromarray(rng.integers(0, CLASSES, (5, 7), dtype=np.uint8))
        mask = mask.resize(image_size(path), Image.Resampling.NEAREST)
        mask.save(root / f"masks/{path.name}.png")
        lines.append(f"images/{path.name}\tmasks/{path.name}.png\n")
    half = len(lines) // 2
    parts = {"val": lines[:4], "labeled": lines[4:half], "unlabeled": lines[half:]}
    for kind, part in parts.items():
        (root / f"{kind}.txt").write_text("".join(part))
    return {
        "name": "photos",
        "root": str(root),
        "classes": [str(i) for i in range(CLASSES)],
        "palette": None,
        "label_map": None,
        "reduce_zero_label": False,
        **{kind: str(root / f"{kind}.txt") for kind in parts},
    }


def _photo(rng: np.random.Generator) -> Image.Image:
    """Draw noise of many scales, which takes about as long to decode as a photo."""
    total = np.zeros((SIZE[1], SIZE[0], 3))
    for octave in range(7):
        cells = (min(4 << octave, SIZE[1]), min(4 << octave, SIZE[0]), 3)
        small = Image.fromarray(rng.integers(0, 256, cells, dtype=np.uint8))
        total += np.asarray(small.resize(SIZE, Image.Resampling.BICUBIC)) / 2**octave
    return Image.fromarray((total / 2).clip(0, 255).astype(np.uint8))
