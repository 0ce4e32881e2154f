"""What the benchmarks run on: generated photos, those of a folder, or the config's own lists."""

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
    """The keys of the config's data section that differ for what the options ask for, whose files
    are written to `root`; raises `UserError` as `make_dataset` does."""
    return {} if options.own else make_dataset(root, options.images)


def make_dataset(root: Path, images: Path | None, count: int = COUNT) -> dict[str, Any]:
    """Write a dataset's folder and lists: half of the images labelled, four of these to validate
    on; returns the config's data section.  Raises `UserError` for a folder without images."""
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    rng = np.random.default_rng(0)
    names = _link(images, root / "images") if images else _generate(rng, root / "images", count)
    lines = []
    for name in names:
        w, h = image_size(root / "images" / name)
        mask = Image.fromarray(rng.integers(0, CLASSES, (5, 7), dtype=np.uint8))
        mask.resize((w, h), Image.Resampling.NEAREST).save(root / f"masks/{name}.png")
        lines.append(f"images/{name}\tmasks/{name}.png\n")
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


def _link(images: Path, folder: Path) -> list[str]:
    found = sorted(p for p in images.glob("*") if p.suffix.lower() in SUFFIXES)
    if len(found) < 16:
        raise UserError(f"--images {images}: found {len(found)} images, expected at least 16")
    for path in found:
        (folder / path.name).symlink_to(path.resolve())
    return [path.name for path in found]


def _generate(rng: np.random.Generator, folder: Path, count: int) -> list[str]:
    names = [f"{i}.jpg" for i in range(count)]
    for name in names:
        picture = sum(_noise(rng, 4 * 2**octave) / 2**octave for octave in range(7))
        Image.fromarray((picture / 2).clip(0, 255).astype(np.uint8)).save(folder / name, quality=90)
    return names


def _noise(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Random colours, `cells` along a side, as an image of float32."""
    w, h = SIZE
    small = rng.integers(0, 256, (min(cells, h), min(cells, w), 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize(SIZE, Image.Resampling.BICUBIC), np.float32)
