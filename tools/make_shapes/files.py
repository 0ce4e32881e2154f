"""Write generated shapes: images or image pairs, masks, and split files."""

import json
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from tools.make_shapes.scenes import (
    CLASSES,
    PALETTE,
    SIMPLE,
    SIMPLE_PALETTE,
    render_pair,
    render_scene,
)
from util.config.types import IGNORE
from util.errors import UserError
from util.io import partial_of

FORMAT = 2  # to increase when the same arguments give other files
PAIRS_FORMAT = 2
SIMPLE_FORMAT = 2
# Lists must not be empty; in smaller images, shapes are indistinguishable.
LEAST = {"labeled": 1, "unlabeled": 1, "val": 1, "size": 32, "seed": 0}
SPLITS = ("train", "val")  # the position of a split is part of its seed


def generate(
    root: Path,
    labeled: int = 32,
    unlabeled: int = 1000,
    val: int = 100,
    size: int = 64,
    seed: int = 0,
    pairs: bool = False,
    simple: bool = False,
    progress: bool = True,
) -> None:
    """Write the dataset: images and masks as PNG files, and split files.

    Does nothing if the same dataset exists. A scene depends only on seed, split and number, so
    datasets of different sizes share their scenes.

    Args:
        labeled, unlabeled, val: number of images; unlabelled ones have no mask.
        size: side of the images, in pixels.
        pairs: two images of one place in A/ and B/, masks of changes in label/, masks of kinds of
            change in kinds/.
        simple: three classes without clutter, learnt in a minute.

    Raises `UserError` for impossible arguments and when the root holds anything else.
    """
    root = Path(root).resolve()
    settings = {"labeled": labeled, "unlabeled": unlabeled, "val": val, "size": size, "seed": seed}
    for name, value in settings.items():
        if value < LEAST[name]:
            raise UserError(f"shapes: {name} is {value}, expected at least {LEAST[name]}")
    settings["format"] = FORMAT
    if pairs and simple:
        raise UserError("shapes: pairs and simple exclude each other")
    settings |= {"pairs": PAIRS_FORMAT} if pairs else {"simple": SIMPLE_FORMAT} if simple else {}
    if _is_there(root, settings):
        return
    partial = partial_of(root)
    try:
        _write_sets(partial, settings, progress)
        (partial / "dataset.json").write_text(json.dumps(settings, indent=2) + "\n")
        if _is_there(root, settings):  # another process was faster
            return
        if root.exists():
            root.rmdir()  # empty, as checked by _is_there
        partial.rename(root)
    except OSError as error:
        raise UserError(f"{root}: cannot be written ({error})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # absent after the rename


def _is_there(root: Path, settings: dict[str, int]) -> bool:
    """Return True if the root holds this dataset; raises `UserError` if it holds another."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    differences = ["something else"]  # such as pairs instead of single images
    with suppress(OSError, ValueError, TypeError):
        found = json.loads((root / "dataset.json").read_text())
        if set(found) == set(settings):
            differences = [
                f"{k} {found[k]} instead of {v}" for k, v in settings.items() if found[k] != v
            ]
    if not differences:
        return True
    raise UserError(
        f"{root}: holds {', '.join(differences)}. Fix: choose another folder or remove it"
    )


def _write_sets(root: Path, settings: dict[str, int], progress: bool) -> None:
    for kind in ("A", "B", "label", "kinds") if "pairs" in settings else ("images", "masks"):
        for split in SPLITS:
            (root / kind / split).mkdir(parents=True)
    for name, split in (("labeled", "train"), ("unlabeled", "train"), ("val", "val")):
        first = settings["labeled"] if name == "unlabeled" else 0
        numbers = range(first, first + settings[name])
        bar = tqdm(numbers, f"shapes, {name}", disable=None if progress else True)
        write = _write_pair if "pairs" in settings else _write_scene
        lines = [write(root, split, i, settings, name != "unlabeled") for i in bar]
        (root / f"{name}.txt").write_text("".join(lines))


def _write_scene(
    root: Path, split: str, index: int, settings: dict[str, int], labeled: bool
) -> str:
    """Write a scene, its mask only if labelled; returns its line in a list."""
    rng = np.random.default_rng([settings["seed"], SPLITS.index(split), index])
    is_simple = "simple" in settings
    image, mask = render_scene(rng, settings["size"], SIMPLE if is_simple else CLASSES)
    name = f"{split}/{index:05d}.png"
    Image.fromarray(image).save(root / "images" / name)
    if not labeled:
        return f"images/{name}\n"
    colours = np.full((256, 3), 224, np.uint8)  # 256 entries, so that PNG stores 8 bits
    palette = SIMPLE_PALETTE if is_simple else PALETTE
    colours[: len(palette)] = palette
    picture = Image.fromarray(mask)
    picture.putpalette(colours.tobytes())
    picture.save(root / "masks" / name)
    return f"images/{name} masks/{name}\n"


def _write_pair(root: Path, split: str, index: int, settings: dict[str, int], labeled: bool) -> str:
    """Write a pair of scenes; if labelled, also the mask of changes (255 on 0 as in published data,
    boundaries 128) and the mask of kinds (class indices). Returns its line in a list."""
    rng = np.random.default_rng([settings["seed"], SPLITS.index(split), index])
    first, second, changed, kinds = render_pair(rng, settings["size"])
    name = f"{split}/{index:05d}.png"
    Image.fromarray(first).save(root / "A" / name)
    Image.fromarray(second).save(root / "B" / name)
    if labeled:
        values = np.zeros(256, np.uint8)
        values[[1, IGNORE]] = 255, 128
        Image.fromarray(values[changed]).save(root / "label" / name)
        Image.fromarray(kinds).save(root / "kinds" / name)
    return f"{name}\n"
