"""Samples of the sources in a config; folders of images, masks, later images with equal names."""

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from dataset.image_files import IMAGE_SUFFIXES
from dataset.samples import Origin, Sample, Samples, leaves_folder
from dataset.split_files import (
    Fault,
    Scan,
    Split,
    missing_split_file_error,
    raise_first_fault,
    scan_split_file,
)
from util.config.data import Data, Folders, ImageSource, ImageSources, SplitFile
from util.errors import UserError, counted, join_first
from util.log import logger
from util.paths import find_path, nearest_hint, nfc

COMPANION_SUFFIXES = set(".txt .csv .json .xml .yaml .yml .md .db .ini .tfw .msk .ovr .prj".split())
"""Suffixes of files that often accompany images."""
MADE_BY = "made_by.json"
"""File in every folder that predict.py or tools.autolabel wrote."""
PREDICTION_FOLDERS = {"masks", "overlays", "confidence", "entropy", "probabilities"}
"""Folders that they write beside it."""


def read_samples(sources: ImageSources, data: Data, masks: bool) -> Split:
    """Return the samples of a source or several; with `masks`, each must have a mask.

    Raises `UserError` as `read_split_file` does, and for a folder that is missing, holds no images
    or has an image without a mask.
    """
    split, faults = scan_samples(sources, data, masks)
    raise_first_fault(faults)
    return split


def scan_samples(sources: ImageSources, data: Data, masks: bool) -> tuple[Split, list[Fault]]:
    """Return the valid samples of a source or several, and the faults of the others.

    Raises `UserError` for a split file or folder that is missing or empty.
    """
    sources = sources if isinstance(sources, tuple) else (sources,)
    origins = [_origin(source, data) for source in sources]
    samples, faults = [], []
    for source, origin in zip(sources, origins, strict=True):
        if isinstance(source, Folders):
            valid, faulty = _scan_folders(source, origin, masks, pairs=data.pair is not None)
        else:
            valid, faulty = scan_split_file(origin, masks, data.pair)
        samples += valid
        faults += faulty
    name = " and ".join(str(origin.path) for origin in origins)
    return Split(name, Samples(samples)), faults


def require_sources(sources: ImageSources, data: Data) -> None:
    """Raise `UserError` for a split file or folder that does not exist, without reading any."""
    for source in sources if isinstance(sources, tuple) else (sources,):
        path = _origin(source, data).path
        if isinstance(source, Folders) and not os.path.isdir(path):
            raise missing_folder_error(path)
        if not os.path.exists(path):  # also False for impossible paths
            raise missing_split_file_error(path)


def _origin(source: ImageSource, data: Data) -> Origin:
    """Return the split file or image folder, and the root, from any working directory."""
    source_root = None if isinstance(source, Path) else source.root
    root = find_path(source_root or data.root)
    if isinstance(source, Folders):
        return Origin(root / source.images, root)
    return Origin(find_path(source.list if isinstance(source, SplitFile) else source), root)


def files_by_stem(folder: Path, skip: Path | None = None, pattern: str = "*") -> dict[str, Path]:
    """Return the image files below a folder by stem, see `names_by_stem`."""
    return {stem: folder / name for stem, name in names_by_stem(folder, skip, pattern).items()}


def names_by_stem(folder: Path, skip: Path | None = None, pattern: str = "*") -> dict[str, str]:
    """Return the image files below a folder, sorted: relative path without suffix -> relative path.

    Hidden files, those below `skip`, and outputs of predict.py and tools.autolabel are left out.
    With a pattern such as `*_rgb.png`, keys are the parts at `*`, which may span folders. Stems are
    in Unicode form NFC (macOS stores NFD). Raises `UserError` where there is no such folder, no
    image, or two of one name.
    """
    if not os.path.isdir(folder):  # also False for impossible paths
        raise missing_folder_error(folder)
    expression = _expression(pattern)
    found: dict[str, str] = {}
    left_out: dict[str, list[str]] = {}
    outputs: list[str] = []
    for parent, folders, names in walk(folder):
        predicted = PREDICTION_FOLDERS & {*folders} if MADE_BY in names else set()
        outputs += [os.path.join(parent, name) for name in sorted(predicted)]
        folders[:] = [f for f in folders if f not in predicted and Path(parent, f) != skip]
        inside = Path(parent).relative_to(folder)
        for path in (str(inside / name) for name in names):
            suffix = os.path.splitext(path)[1].lower()
            if not (fitting := expression.fullmatch(path)) or suffix in COMPANION_SUFFIXES:
                continue
            if suffix not in IMAGE_SUFFIXES:
                left_out.setdefault(suffix, []).append(path)
                continue
            first = found.setdefault(nfc(fitting[1]), path)
            if first != path:
                raise UserError(
                    f"{folder / path}: has the same name as {Path(first).name} except for the "
                    "suffix; expected one file per name. Fix: move one away"
                )
    _warn_of_left_out(folder, left_out, outputs)
    if not found:
        kind = ", ".join(sorted(IMAGE_SUFFIXES)) if pattern == "*" else f"named {pattern}"
        raise UserError(f"{folder}: holds no images ({kind})")
    return dict(sorted(found.items()))


def _warn_of_left_out(folder: Path, files: dict[str, list[str]], outputs: list[str]) -> None:
    """Warn of `files` with other suffixes, and of `outputs` of predict.py or tools.autolabel."""
    if files:
        kinds = (
            f"{len(paths)} {suffix or 'without a suffix'}, such as {paths[0]}"
            for suffix, paths in files.items()
        )
        _warn_once(
            f"{folder}: files are left out by their suffix: {', '.join(kinds)}; expected "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}. Fix: rename or convert the images among them"
        )
    if outputs:
        _warn_once(
            f"{folder}: outputs of predict.py or tools.autolabel are left out: "
            f"{join_first(outputs, 3)}. Fix: to read such a folder, name it itself"
        )


def missing_folder_error(folder: Path) -> UserError:
    return UserError(f"{folder}: no such folder{nearest_hint(folder)}")


@cache
def _warn_once(text: str) -> None:
    logger.warning(text)


def _expression(pattern: str) -> re.Pattern[str]:
    """Compile a pattern such as `*_image.png`; the group captures the part at `*`."""
    head, star, tail = pattern.partition("*")
    if not star or "*" in tail:
        raise UserError(f"{pattern}: expected a pattern with one *, such as *_image.png")
    return re.compile(rf"{re.escape(head)}(.+){re.escape(tail) or '[.][^./]*'}", re.DOTALL)


def walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk as `os.walk`, sorted, without hidden files and folders, also through links; raises
    `UserError` for a link to a folder above it."""
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        yield parent, folders, sorted(name for name in names if name[0] != ".")
        for link in (Path(parent, name) for name in folders):
            above = (os.path.realpath(path) for path in link.absolute().parents)
            if link.is_symlink() and os.path.realpath(link) in above:
                raise UserError(f"{link}: a link to a folder that it is in. Fix: remove it")


def _scan_folders(folders: Folders, origin: Origin, masks: bool, pairs: bool) -> Scan:
    """Match images with second images and masks of the same name."""
    for folder in filter(None, (folders.images, folders.second, folders.masks)):
        if leaves_folder(str(folder)):
            raise UserError(
                f"{folder}: leads out of the data's root or is absolute; expected a folder "
                "relative to data.root"
            )
    root = origin.root
    images = names_by_stem(origin.path, skip=root / folders.masks if folders.masks else None)
    others: dict[str, dict[str, str]] = {}
    if masks:
        others["mask"] = _names_below(folders.masks, "masks", origin)
    if pairs:
        others["second image"] = _names_below(folders.second, "second", origin)
    for kind, files in others.items():
        if unmatched := files.keys() - images.keys():
            logger.warning(
                f"{origin.path}: has no image for {counted(len(unmatched), kind)}, such as "
                f"{root / files[min(unmatched)]}; left out"
            )
    samples, faults = [], []
    for stem, name in images.items():
        if lacking := [kind for kind, files in others.items() if stem not in files]:
            folder = root / str(folders.masks if lacking == ["mask"] else folders.second)
            faults.append(Fault(origin, 0, f"'{name}' has no {lacking[-1]} {folder / stem}.*"))
            continue
        mask, second = (others.get(kind, {}).get(stem) for kind in ("mask", "second image"))
        samples.append(Sample(str(folders.images / name), mask, 0, origin, second))
    return samples, faults


def _names_below(folder: Path | None, key: str, origin: Origin) -> dict[str, str]:
    """Return paths below the root by stem, for a folder that the config must name."""
    if folder is None:
        what = "masks" if key == "masks" else "second images (data.pair is set)"
        raise UserError(
            f"{origin.path}: its images need {what}; expected {{images: FOLDER, {key}: FOLDER}}"
        )
    return {stem: str(folder / name) for stem, name in names_by_stem(origin.root / folder).items()}
