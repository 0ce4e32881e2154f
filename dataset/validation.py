"""Checks of splits and files before training starts."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from dataset.bands import is_grey
from dataset.file_content import stored_kind
from dataset.folders import read_samples
from dataset.georeferencing import refuse_other_grid
from dataset.image_files import image_size, missing_file_hint, size_mismatch_error
from dataset.mask_files import CLEAR, read_mask
from dataset.mask_kinds import MaskFormat, disagreement, mask_format
from dataset.overlap import refuse_overlaps
from dataset.reader import Reader, refuse_other_size
from dataset.samples import NO_IMAGE, Sample, Samples, mentions_image
from dataset.split_files import Fault, Split, Splits, raise_first_fault
from dataset.threads import map_in_threads, try_in_threads
from util.config.data import Data, ImageSources
from util.config.types import IGNORE
from util.errors import UserError, counted, join_first
from util.log import logger
from util.numbers import evenly_spaced

MAX_HEADERS = 5000
"""Samples of a split whose headers are compared, and the sizes of their files between machines."""
MIN_IMAGES = 10
"""Least number of validation images without a warning."""
MIN_MASKS_PER_CLASS = 3
"""Least number of validation images per class without a warning."""
R = TypeVar("R")


def read_splits(data: Data, unlabeled: bool) -> Splits:
    """Read the splits that the config names and check them against each other.

    Raises `UserError` as `read_samples` does, and for an image that is in two splits.
    """
    labeled = read_samples(required_source(data.labeled, "labeled"), data, masks=True)
    extra = Split("", Samples())
    if unlabeled:
        extra = read_samples(required_source(data.unlabeled, "unlabeled"), data, masks=False)
    splits = Splits(labeled, extra, read_samples(data.val, data, masks=True))
    refuse_overlaps(*splits)
    return splits


def required_source(source: ImageSources | None, split: str) -> ImageSources:
    """Return the source of a split; raises `UserError` where the config does not name it."""
    if source is not None:
        return source
    problem = (
        f"data.{split}: not set; expected a split file or folders. Fix: set data.{split} in the "
        f"config; a training also takes --{split}-id-path FILE"
    )
    if split == "unlabeled":
        problem += (
            ". If all images are labelled, draw both splits: python -m tools.splits make "
            "--config CONFIG --labeled 1/8 --out FOLDER"
        )
    raise UserError(problem)


def check_files(data: Data, *splits: Split, scored: Split | None = None) -> None:
    """Check that files exist, headers of images and masks agree, and some files decode.

    Warns of absent classes, of grey images under `bands: rgb`, and of too few `scored`
    images (one of the splits). Raises `UserError` that names the split file, line and file.
    """
    for split in splits:
        check_existence(split)
        check_contents(split, data, scored=split is scored)


def check_existence(split: Split) -> None:
    """Raise `UserError` for a missing file, after one listing of each folder."""
    names = cache(_file_names)

    def exists(root: Path, file: str) -> bool:
        folder, _, name = file.rpartition("/")
        return name in names(root, folder)

    for sample in split.samples:
        for file in filter(None, (sample.image, sample.second, sample.mask)):
            if not exists(sample.origin.root, file):
                raise UserError(f"{sample.where}: {_absence(sample, file, exists)}")


def _absence(sample: Sample, file: str, exists: Callable[[Path, str], bool]) -> str:
    """Describe a missing file of a sample; for a name in three folders, where it exists."""
    root, folders = sample.origin.root, sample.origin.folders
    if folders is not None:
        name = Path(sample.image).relative_to(folders.first)
        for folder in (folders.first, folders.second, folders.masks):
            if exists(root, (folder / name).as_posix()):
                lacking = Path(file).parents[len(name.parts) - 1]
                return (
                    f"'{name}' is in {folder} but not in {lacking}; expected it in all folders of "
                    f"data.pair, below {root}: add it or remove the line"
                )
    return (
        f"{root / file}: no such file{missing_file_hint(root / file)}"
        if mentions_image(file)
        else NO_IMAGE
    )


def sizes_digest(split: Split) -> str:
    """Return a digest of the sizes in bytes of many files, by which machines compare their data.

    Raises `UserError` for a missing file.
    """
    sizes = []
    for sample in evenly_spaced(split.samples, MAX_HEADERS):
        for file in sample.files:
            try:
                sizes.append(file.stat().st_size)
            except OSError:
                hint = missing_file_hint(file)
                raise UserError(f"{sample.where}: {file}: no such file{hint}") from None
    return hashlib.sha256(str(sizes).encode()).hexdigest()[:12]


def check_contents(split: Split, data: Data, scored: bool) -> None:
    """Check headers of many files and decode some, see `check_files`; raises `UserError`."""
    samples = split.samples
    reader = Reader(data)
    decoded = evenly_spaced(samples, data.check_samples)
    files = [sample.image_file for sample in decoded]
    has_masks = bool(samples) and samples[0].mask is not None
    if data.pair is not None or has_masks:
        _checked(_headers_agree, evenly_spaced(samples, MAX_HEADERS), [])
    if not has_masks:
        _checked(reader.image, decoded, files)
    elif pixels := _checked(
        lambda s: np.array(reader.image_and_mask(s)[1].histogram()), decoded, files
    ):
        _refuse_disagreement([sample.mask_file for sample in decoded], reader)
        _check_classes(np.sum(pixels, axis=0), len(decoded), split, data)
        showing = (np.array(pixels) > 0).sum(0) if len(decoded) == len(samples) else None
        if scored and (few := too_few(len(samples), data.classes, showing)):
            logger.warning("%s: %s", split.name, few)
    if data.bands == "rgb" and decoded and all(is_grey(f) for s in decoded for f in s.image_files):
        logger.warning(
            "%s: all images checked (%d) are grey; their band is repeated to three. Fix: with "
            "data.bands=grey the network sees one", split.name, len(decoded),
        )  # fmt: skip


def _file_names(root: Path, folder: str) -> set[str]:
    """Return the names of the files in a folder; none for an unreadable folder."""
    try:
        with os.scandir(root / folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set()


def _headers_agree(sample: Sample) -> None:
    """Raise `UserError` unless the images of all dates, and the mask, have one size and grid."""
    sizes = [image_size(file) for file in sample.image_files]
    refuse_other_size(sample.image_files, sizes)
    if sample.mask is not None and sizes[0] != (mask := image_size(sample.mask_file)):
        raise size_mismatch_error(sample.image_file, sample.mask_file, sizes[0], mask)
    refuse_other_grid(sample.files)


def _refuse_disagreement(files: Sequence[Path], reader: Reader) -> None:
    """Raise `UserError` for masks of several kinds or palettes whose values disagree."""
    kinds = {stored_kind(path) for path in files}
    if reader.labels.in_colour or (len(kinds) < 2 and "P" not in {mode for mode, _ in kinds}):
        return

    def format_of(path: Path) -> MaskFormat:
        mask = read_mask(path, reader.data.max_megapixels)
        codes = np.unique(reader.labels.codes(mask, path))
        return mask_format(mask, codes[codes < CLEAR].tolist(), path, reader.labels)

    if text := disagreement(map_in_threads(format_of, files, files, "comparing masks")):
        raise UserError(text)


def _check_classes(pixels: np.ndarray, masks: int, split: Split, data: Data) -> None:
    """Raise `UserError` where no pixel is labelled; warn of absent classes; `pixels`: `[256]`."""
    where = f"the {counted(masks, 'mask')} checked of {split.name}"
    hint = ""
    if pixels[IGNORE]:
        hint = f"; {pixels[IGNORE] / pixels.sum():.0%} of the pixels are "
        hint += "ignored" if data.label_map else "255: ignored, unless data.label_map maps it"
    if not pixels[:IGNORE].any():
        raise UserError(f"no pixel is labelled in {where}{hint}")
    absent = [name for name, count in zip(data.classes, pixels, strict=False) if not count]
    if absent:
        logger.warning("classes without pixels in %s: %s%s", where, ", ".join(absent), hint)


def too_few(
    images: int,
    names: Sequence[str],
    showing: Iterable[int] | None,
    config: str = "CONFIG",
    folder: str = "FOLDER",
) -> str:
    """Describe a validation split with too few images, or too few of a class; "" for a large one.

    Args:
        names: of the classes.
        showing: number of validation images that show each class; None: unknown.
        config, folder: of the command that the text advises, quoted for a shell.
    """
    problems = []
    if images < MIN_IMAGES:
        problems.append(f"{counted(images, 'validation image')}, expected at least {MIN_IMAGES}")
    counts = zip(names, () if showing is None else showing, strict=False)
    if rare := [f"{name} ({count})" for name, count in counts if count < MIN_MASKS_PER_CLASS]:
        few = f"fewer than {MIN_MASKS_PER_CLASS} validation images show"
        problems.append(f"{few} {join_first(rare, 5)}")
    if not problems:
        return ""
    return (
        f"{'; '.join(problems)}: scores are uncertain. Fix: validate on more images, or, if each "
        "shows another patient, video or field, cross-validate: python -m tools.splits make "
        f"--config {config} --folds 5 --out {folder}"
    )


def _checked(
    check: Callable[[Sample], R], samples: Sequence[Sample], files: Sequence[Path]
) -> list[R]:
    """Return the results of a check; raises `UserError` as `raise_first_fault`."""
    checked = try_in_threads(check, samples, files, "checking files")
    raise_first_fault([
        Fault(sample.origin, sample.line, str(error))
        for sample, error in zip(samples, checked, strict=True)
        if isinstance(error, UserError)
    ])  # fmt: skip
    return [result for result in checked if not isinstance(result, UserError)]
