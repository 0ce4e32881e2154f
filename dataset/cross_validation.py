"""Folds of a cross-validation: find their folder, and tell one draw of them from another."""

import hashlib
import re
from pathlib import Path

from dataset.protocols import fingerprint
from util.config.data import Data, ImageSources, SplitFile
from util.paths import find_path

FOLD = re.compile(r"fold_\d+")
"""Names of the folders of folds."""


def split_file(data: Data, split: str) -> Path | None:
    """Return the split file of the labeled, unlabeled or val images, if the config names exactly
    one."""
    images: ImageSources | None = getattr(data, split)
    path = images.list if isinstance(images, SplitFile) else images
    return path if isinstance(path, Path) else None


def fold_folder(data: Data) -> Path | None:
    """Return the folder of a fold's split files, as `tools.splits make --folds` writes them."""
    labeled, val = (split_file(data, split) for split in ("labeled", "val"))
    if labeled is None or val is None or labeled.parent != val.parent:
        return None
    return labeled.parent if FOLD.fullmatch(labeled.parent.name) else None


def folds_digest(data: Data) -> str | None:
    """Return a digest of the labelled and validation images of all folds beside the config's, which
    is the same for all of them; None without folds, or where a file cannot be read."""
    fold = fold_folder(data)
    if fold is None:
        return None
    names = [path.name for split in ("labeled", "val") if (path := split_file(data, split))]
    try:
        folds = [path for path in find_path(fold).parent.iterdir() if FOLD.fullmatch(path.name)]
        contents = [(path / name).read_bytes() for path in sorted(folds) for name in names]
    except OSError:  # a fold without such a file
        return None
    digests = "".join(fingerprint(content).sha256 for content in contents)
    return hashlib.sha256(digests.encode()).hexdigest()[:12]
