"""Images for automatic labels."""

import os
from pathlib import Path

from dataset.folders import read_samples
from dataset.samples import Origin, Sample
from dataset.validation import location, required_source
from inference.inputs import find_images
from util.config.data import Data, PairFolders
from util.errors import UserError


def unlabelled_samples(
    data: Data, images: list[Path] | None, listed: Path | None, out: Path
) -> tuple[dict[str, Sample], int]:
    """Return the images of `images` (files and folders), `listed` (a split file) or data.unlabeled,
    by the names of their masks.

    Labelled, validation and test images of the config are left out; their number is returned too.
    Raises `UserError` where no image remains, and where two would share a mask.
    """
    if isinstance(data.pair, PairFolders):
        raise UserError(
            "data.pair: split files of names have no column for new masks; write them as "
            "'first second mask', with data.pair: column"
        )
    if data.pair is not None and images:
        raise UserError("--images: data.pair is set; name pairs in a split file with --list")
    found = _of_files(images, out) if images else _of_list(data, listed)
    sources = [source for source in (data.labeled, data.val, data.test) if source is not None]
    lists = [read_samples(source, data, masks=True) for source in sources]
    taken = {location(sample) for known in lists for sample in known.samples}
    kept = {name: sample for name, sample in found.items() if location(sample) not in taken}
    if not kept:
        raise UserError(
            f"no image to label: all {len(found)} are labelled, validation or test images"
        )
    return kept, len(found) - len(kept)


def _of_files(images: list[Path], out: Path) -> dict[str, Sample]:
    return {
        name: Sample(path.name, None, 0, Origin(path.parent, path.parent))
        for name, path in find_images(images, out).items()
    }


def _of_list(data: Data, listed: Path | None) -> dict[str, Sample]:
    source = listed or required_source(data.unlabeled, "unlabeled")
    found: dict[str, Sample] = {}
    for sample in read_samples(source, data, masks=False).samples:
        name = os.path.splitext(sample.image)[0]
        first = found.setdefault(name, sample)
        if first != sample:
            raise UserError(
                f"{sample.where}: {first.image_file} and {sample.image_file} would share the mask "
                f"{name}.png"
            )
    return found
