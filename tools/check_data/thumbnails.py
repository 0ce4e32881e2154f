"""Choose and draw the samples that the HTML report shows."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from PIL import Image

from dataset.bands import pictures
from dataset.mask_files import read_mask
from dataset.reader import Reader
from inference.overlay import colour_mask, contents, overlay, percent
from tools.check_data.image_stats import band_names
from tools.check_data.inspect import Seen, SeenList
from tools.check_data.outliers import suspects
from tools.check_data.problems import Problem
from util.colours import Colour
from util.config.schema import Config
from util.errors import UserError

SHOWN = {"labeled": 12, "unlabeled": 6, "val": 6, "test": 6}
"""Samples shown of a split."""
SUSPECTS = 4
"""Suspects shown of a kind."""
FULL = 1600
"""Larger pictures are reduced, to this many pixels at their longer side."""


class Figure(NamedTuple):
    """A sample as the page shows it."""

    views: list[Image.Image]
    name: str
    notes: str
    legend: list[tuple[Colour, str, str]]
    """Colour, name and share of the classes in its mask."""


def suspect_figures(
    lists: Sequence[SeenList], found: Sequence[Problem], config: Config
) -> Iterator[Figure]:
    """Yield the first suspects of each kind."""
    reader, names = Reader(config.data), band_names(config.data)
    for kind, group in groupby(suspects(lists, found, names), key=lambda suspect: suspect.kind):
        some = list(group)
        title = f"{kind} (one of {len(some)})" if len(some) > 1 else kind
        for suspect in some[:SUSPECTS]:
            yield from figures(suspect.seen, f"{title}: {suspect.reason}", reader, suspect.twin)


def sample_figures(found: SeenList, config: Config) -> Iterator[Figure]:
    """Yield samples without faults: the rarest classes first, or from dark to bright."""
    reader, count = Reader(config.data), SHOWN[found.kind]
    if found.pixels.any():
        chosen = list(rarest(found, config.data.classes, count))
    else:
        chosen = [(seen, "") for seen in by_brightness(found, count)]
    for seen, reason in chosen:
        yield from figures(seen, reason, reader)


def rarest(found: SeenList, classes: Sequence[str], count: int) -> Iterator[tuple[Seen, str]]:
    """Yield up to `count` samples with a reason: the sample with the largest share of each class,
    classes in the fewest masks first; then the second largest, and so on."""
    masks, pixels = found.masks_with, found.pixels
    order = sorted(range(len(classes)), key=lambda index: (masks[index], pixels[index]))
    left = {
        seen: seen.pixels / seen.pixels.sum()
        for seen in found.seen
        if not seen.faults and seen.pixels is not None
    }
    while any(shares[index] for shares in left.values() for index in order):
        for index in order:
            best = max(left, key=lambda seen: left[seen][index], default=None)
            if count and best and left[best][index]:
                yield best, f"{classes[index]} (in {masks[index]} masks)"
                del left[best]
                count -= 1
        if not count:
            return


def by_brightness(found: SeenList, count: int) -> list[Seen]:
    """Return samples evenly spaced between the darkest and the brightest."""
    pairs = [(seen.facts.brightness, i) for i, seen in enumerate(found.seen) if seen.facts]
    order = [found.seen[i] for _, i in sorted(pairs)]
    places = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return [order[place] for place in places]


def figures(seen: Seen, reason: str, reader: Reader, twin: Seen | None = None) -> Iterator[Figure]:
    """Yield a sample with its mask, beside its twin if there is one; nothing where it cannot be
    shown."""
    try:
        views, classes = _pictures(seen, reader)
        if twin:
            views = [views[-1], _pictures(twin, reader)[0][-1]]
    except (UserError, ValueError):  # unreadable, or changed since the inspection
        return
    scale = max(1.0, max(views[0].size) / FULL)
    notes = [reason, f"shown at 1/{scale:.1f} of its size" if scale > 1 else ""]
    views = [view.convert("RGB") for view in views]
    for view in views:
        view.thumbnail((FULL, FULL), Image.Resampling.LANCZOS)
    shares = [] if classes is None else contents(classes, reader.data)
    legend = [(colour, name, percent(share)) for colour, name, share in shares]
    yield Figure(views, seen.sample.image, "; ".join(filter(None, notes)), legend)


def _pictures(seen: Seen, reader: Reader) -> tuple[list[Image.Image], np.ndarray | None]:
    """Return the image, or both dates, with the mask over it (the later one), or beside it where
    their sizes differ; and the class indices."""
    sample, data = seen.sample, reader.data
    dates = pictures(reader.image(sample), data)
    if sample.mask is None:
        return dates, None
    stored = read_mask(sample.mask_file, data.max_megapixels)
    try:
        codes = reader.labels.codes(stored, sample.mask_file)
    except UserError:  # of a wrong mode
        shown = [stored.pixels.convert("RGB")] if isinstance(stored.pixels, Image.Image) else []
        return [*dates, *shown], None
    classes = reader.labels.class_of(codes)  # UNKNOWN for values without a class
    if stored.size != dates[-1].size:
        return [*dates, colour_mask(classes, data)], classes
    return [*dates, overlay(dates[-1], classes, data)], classes
