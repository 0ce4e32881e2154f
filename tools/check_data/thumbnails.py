"""Choose and draw the samples that the HTML report shows."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from PIL import Image

from dataset.bands import rgb_previews
from dataset.mask_files import read_mask
from dataset.reader import Reader
from inference.overlay import class_shares, colour_mask, overlay, percent
from tools.check_data.image_stats import channel_names
from tools.check_data.inspect import CheckedSample, CheckedSplit
from tools.check_data.outliers import highlights
from tools.check_data.problems import Problem
from util.colours import Colour
from util.config.schema import Config
from util.config.types import IGNORE
from util.errors import UserError

SHOWN = {"labeled": 12, "unlabeled": 6, "val": 6, "test": 6}
"""Samples shown of a split."""
HIGHLIGHTS = 4
"""Highlights shown of a kind."""
FULL = 1600
"""Larger pictures are reduced, to this many pixels at their longer side."""


class Figure(NamedTuple):
    """A sample as the page shows it."""

    views: list[Image.Image]
    name: str
    notes: str
    legend: list[tuple[Colour, str, str]]
    """Colour, name and share of the classes in its mask."""


def highlight_figures(
    splits: Sequence[CheckedSplit], found: Sequence[Problem], config: Config
) -> Iterator[Figure]:
    """Yield the first highlights of each kind."""
    reader, names = Reader(config.data), channel_names(config.data)
    for kind, group in groupby(highlights(splits, found, names), key=lambda one: one.kind):
        of_kind = list(group)
        title = f"{kind} (one of {len(of_kind)})" if len(of_kind) > 1 else kind
        for highlight in of_kind[:HIGHLIGHTS]:
            yield from figures(
                highlight.item, f"{title}: {highlight.reason}", reader, highlight.twin
            )


def sample_figures(found: CheckedSplit, config: Config) -> Iterator[Figure]:
    """Yield samples without faults: the rarest classes first, or from dark to bright."""
    reader, count = Reader(config.data), SHOWN[found.name]
    if found.is_labelled:
        chosen = list(rarest(found, config.data.classes, count))
    else:
        chosen = [(item, "") for item in by_brightness(found, count)]
    for item, reason in chosen:
        yield from figures(item, reason, reader)


def rarest(
    found: CheckedSplit, classes: Sequence[str], count: int
) -> Iterator[tuple[CheckedSample, str]]:
    """Yield up to `count` samples with a reason: the sample with the largest share of each class,
    classes in the fewest masks first; then the second largest, and so on."""
    masks, pixels = found.masks_with, found.pixels
    order = sorted(range(len(classes)), key=lambda index: (masks[index], pixels[index]))
    left = {
        item: (item.pixels, item.pixels.sum())
        for item in found.items
        if not item.faults and item.pixels is not None
    }
    while any(pixels[index] for pixels, _ in left.values() for index in order):
        for index in order:
            if not count:
                return
            best = max(left, key=lambda item: left[item][0][index] / left[item][1], default=None)
            if best and left[best][0][index]:
                yield best, f"{classes[index]} (in {masks[index]} masks)"
                del left[best]
                count -= 1


def by_brightness(found: CheckedSplit, count: int) -> list[CheckedSample]:
    """Return samples evenly spaced between the darkest and the brightest."""
    pairs = [(item.facts.brightness, i) for i, item in enumerate(found.items) if item.facts]
    order = [found.items[i] for _, i in sorted(pairs)]
    indices = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return [order[index] for index in indices]


def figures(
    item: CheckedSample, reason: str, reader: Reader, twin: CheckedSample | None = None
) -> Iterator[Figure]:
    """Yield a sample with its mask, beside its twin if there is one; nothing if it cannot be
    shown."""
    try:
        views, classes = _pictures(item, reader)
        if twin:
            views = [views[-1], _pictures(twin, reader)[0][-1]]
    except (UserError, ValueError):  # unreadable, or changed since the inspection
        return
    scale = max(1.0, max(views[0].size) / FULL)
    notes = [reason, f"shown at 1/{scale:.1f} of its size" if scale > 1 else ""]
    views = [view.convert("RGB") for view in views]
    for view in views:
        view.thumbnail((FULL, FULL), Image.Resampling.LANCZOS)
    shares = [] if classes is None else class_shares(classes, reader.data)
    legend = [(colour, name, percent(share)) for colour, name, share in shares]
    yield Figure(views, item.sample.image, "; ".join(filter(None, notes)), legend)


def _pictures(item: CheckedSample, reader: Reader) -> tuple[list[Image.Image], np.ndarray | None]:
    """Return the image, or both dates, with the mask over it (the later one), or beside it where
    their sizes differ; and the class indices."""
    sample, data = item.sample, reader.data
    image, nodata_mask = reader.image_and_nodata_mask(sample)
    dates = rgb_previews(image, data)
    if sample.mask is None:
        return dates, None
    stored = read_mask(sample.mask_file, data.max_megapixels)
    try:
        codes = reader.labels.codes(stored, sample.mask_file)
    except UserError:  # wrong mode
        shown = [stored.pixels.convert("RGB")] if isinstance(stored.pixels, Image.Image) else []
        return [*dates, *shown], None
    classes = reader.labels.class_of(codes)  # UNKNOWN for values without a class
    if stored.size != dates[-1].size:
        return [*dates, colour_mask(classes, data)], classes
    if nodata_mask is not None:
        classes = np.where(np.asarray(nodata_mask), IGNORE, classes)
    return [*dates, overlay(dates[-1], classes, data)], classes
