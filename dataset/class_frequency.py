"""Class frequencies among labelled pixels, and class weights that balance them."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dataset.file_content import sidecar_of
from dataset.reader import Reader
from dataset.split_files import SampleList
from util.config.data import Data
from util.errors import UserError
from util.io import file_state, write_atomically


def enet_weights(pixels: np.ndarray) -> tuple[float, ...]:
    """Return 1 / ln(1.02 + share) by class (Paszke et al., 2016): from 1.4 for a class of all
    pixels to 50 for an absent class."""
    weights = 1 / np.log(1.02 + pixels / max(pixels.sum(), 1))
    return tuple(round(weight, 6) for weight in weights.tolist())


def inverse_weights(pixels: np.ndarray) -> tuple[float, ...]:
    """Return 1 / (share x classes that occur) by class: all classes weigh the same in total, a
    pixel 1 on average (King and Zeng, 2001). The weight of an absent class is 1.
    """
    share = pixels / max(pixels.sum(), 1)
    weights = np.divide(1, share * (pixels > 0).sum(), out=np.ones(len(pixels)), where=pixels > 0)
    return tuple(round(weight, 6) for weight in weights.tolist())


def class_pixels(listed: SampleList, data: Data) -> np.ndarray:
    """Count the labelled pixels of each class in a list, `[C]`, where the images have data.

    Counts are cached in the user's cache folder until a file, the label map or the bands change.
    Raises `UserError` as `Reader.both` does.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cached = Path(base, "semi-segmentation", "class-pixels", f"{_key(listed, data)}.json")
    with suppress(OSError, ValueError):
        return np.array(json.loads(cached.read_text()), np.int64)
    reader = Reader(data)
    with ThreadPoolExecutor() as pool:
        counted = pool.map(lambda s: reader.both(s)[1].histogram(), listed.samples)
        total = len(listed.samples)
        counts = list(tqdm(counted, "counting classes", total, disable=None, leave=False))
    pixels = np.array(counts, np.int64).sum(0)[: len(data.classes)]
    with suppress(OSError, UserError):  # without a cache the next run counts again
        cached.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(pixels.tolist()).encode()
        write_atomically(cached, lambda file: file.write(text))
    return pixels


def _key(listed: SampleList, data: Data) -> str:
    """Hash what is read: paths, sizes and times of the files, label map and bands."""
    digest = hashlib.sha256()
    meaning = data.classes, data.label_map, data.reduce_zero_label, data.bands
    digest.update(json.dumps(meaning).encode())
    for sample in listed.samples:
        for path in (*sample.image_files, sample.mask_file):
            try:
                digest.update(os.fsencode(f"{file_state(path)}\n"))
            except OSError as error:
                raise UserError(f"{sample.where}: {path}: {error.strerror}") from None
            with suppress(OSError):
                digest.update(os.fsencode(f"{file_state(sidecar_of(path))}\n"))
    return digest.hexdigest()[:32]
