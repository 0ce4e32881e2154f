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
from tools.check_data.band_stats import band_names
from tools.check_data.inspect import Seen, SeenList
from tools.check_data.outliers import Suspect, suspects
from util.colours import Colour
from util.config.data import Data
from util.config.schema import Config
from util.errors import UserError

SHOWN = {"labeled": 12, "unlabeled": 6, "val": 6, "test": 6}
"""Samples shown of a list."""
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


def suspect_figures(lists: Sequence[SeenList], config: Config) -> list[Figure]:
    """Return the first suspects of each kind."""
    reader, figures = Reader(config.data), []
    found = suspects(lists, band_names(config.data))
    for kind, group in groupby(found, key=lambda suspect: suspect.kind):
        some = list(group)
        title = f"{kind} (one of {len(some)})" if len(some) > 1 else kind
        for suspect in some[:SUSPECTS]:
            reason = f"{title}: {suspect.reason}"
            figures += _figure(suspect.seen, reason, reader, config.data, suspect.twin)
    return figures


def sample_figures(found: SeenList, config: Config) -> list[Figure]:
    """Return samples without faults: the rarest classes first, or from dark to bright."""
    reader = Reader(config.data)
    count = SHOWN[found.kind]
    if found.pixels.any():
        some = list(rarest(found, config.data.classes, count))
    else:
        some = [Suspect(seen, "", "") for seen in by_brightness(found, count)]
    return [one for s in some for one in _figure(s.seen, s.reason, reader, config.data)]


def rarest(found: SeenList, classes: Sequence[str], count: int) -> Iterator[Suspect]:
    """Yield the sample that shows most of each class, classes of the fewest masks first; repeat."""
    left = [seen for seen in found.seen if not seen.faults and seen.pixels is not None]
    masks, pixels = found.masks_with, found.pixels
    order = sorted(range(len(classes)), key=lambda index: (masks[index], pixels[index]))
    while left and count:
        before = len(left)
        for index in order:
            best = max(left, key=lambda seen: _share(seen, index), default=None)
            if best is None or not count or not _share(best, index):
                continue
            left, count = [seen for seen in left if seen is not best], count - 1
            yield Suspect(best, "", f"{classes[index]} (in {masks[index]} masks)")
        if len(left) == before:
            return


def _share(seen: Seen, index: int) -> float:
    return 0.0 if seen.pixels is None else seen.pixels[index] / seen.pixels.sum()


def by_brightness(found: SeenList, count: int) -> list[Seen]:
    """Return samples evenly spaced between the darkest and the brightest."""
    pairs = [(seen.facts.brightness, i) for i, seen in enumerate(found.seen) if seen.facts]
    order = [found.seen[i] for _, i in sorted(pairs)]
    places = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return [order[place] for place in places]


def _figure(
    seen: Seen, reason: str, reader: Reader, data: Data, twin: Seen | None = None
) -> list[Figure]:
    """A sample's pictures and the classes in its mask; empty where it cannot be shown.

    Of a sample with a twin: both with their masks, side by side.
    """
    try:
        views, classes = _pictures(seen, reader, data)
        if twin:
            views = [views[-1], _pictures(twin, reader, data)[0][-1]]
    except (UserError, ValueError):  # cannot be shown, or has changed since it was inspected
        return []
    scale = max(1.0, max(views[0].size) / FULL)
    notes = [reason, f"shown at 1/{scale:.1f} of its size" if scale > 1 else ""]
    for place, view in enumerate(views):
        views[place] = view.convert("RGB")
        views[place].thumbnail((FULL, FULL), Image.Resampling.LANCZOS)
    shares = [] if classes is None else contents(classes, data)
    return [
        Figure(
            views,
            seen.sample.image,
            "; ".join(filter(None, notes)),
            [(colour, name, percent(share)) for colour, name, share in shares],
        )
    ]


def _pictures(
    seen: Seen, reader: Reader, data: Data
) -> tuple[list[Image.Image], np.ndarray | None]:
    """Return the image, or both dates, with the mask over it (the later one), or beside it where
    their sizes differ; and the class indices."""
    sample = seen.sample
    dates = pictures(reader.image(sample), data)
    if sample.mask is None:
        return dates, None
    stored = read_mask(sample.mask_file, data.max_megapixels)
    try:
        codes = reader.labels.codes(stored, sample.mask_file)
    except UserError:  # of a wrong mode
        shown = [stored.pixels.convert("RGB")] if isinstance(stored.pixels, Image.Image) else []
        return [*dates, *shown], None
    classes = reader.labels.class_of(codes)  # with UNKNOWN for what is none
    if stored.size != dates[-1].size:
        return [*dates, colour_mask(classes, data)], classes
    return [*dates, overlay(dates[-1], classes, data)], classes
