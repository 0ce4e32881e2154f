"""The pictures of the HTML report: which samples, and how they are shown."""

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby

import numpy as np
from PIL import Image

from dataset.bands import pictures
from dataset.mask_files import read_mask
from dataset.reader import Reader
from inference.overlay import colour_mask, contents, overlay, percent
from tools import html
from tools.check_data.band_stats import band_names
from tools.check_data.inspect import Seen, SeenList
from tools.check_data.outliers import Suspect, suspects
from util.config.schema import Config, Data
from util.errors import UserError

SHOWN = {"labeled": 12, "unlabeled": 6, "val": 6, "test": 6}
"""Samples shown of a list."""
SUSPECTS = 4
"""Suspects shown of a kind."""
FULL = 1600
"""Larger pictures are reduced, to this many pixels at their longer side."""


def suspect_figures(lists: Sequence[SeenList], config: Config) -> str:
    """The first suspects of each kind."""
    reader, figures = Reader(config.data), []
    found = suspects(lists, band_names(config.data))
    for kind, group in groupby(found, key=lambda suspect: suspect.kind):
        some = list(group)
        title = f"{kind} (one of {len(some)})" if len(some) > 1 else kind
        for suspect in some[:SUSPECTS]:
            reason = f"{title}: {suspect.reason}"
            figures.append(_figure(suspect.seen, reason, reader, config.data))
    return f'<div class="figures">{"".join(figures)}</div>' if any(figures) else ""


def sample_figures(found: SeenList, config: Config) -> str:
    """Samples without faults: the rarest classes first, or from dark to bright."""
    reader = Reader(config.data)
    count = SHOWN[found.kind]
    if found.pixels.any():
        some = list(rarest(found, config.data.classes, count))
    else:
        some = [Suspect(seen, "", "") for seen in by_brightness(found, count)]
    figures = (_figure(seen, reason, reader, config.data) for seen, _, reason in some)
    return f'<div class="figures">{"".join(figures)}</div>'


def rarest(found: SeenList, classes: Sequence[str], count: int) -> Iterator[Suspect]:
    """For the classes of the fewest masks the sample that shows most of each; then the next."""
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
            reason = f"chosen for {classes[index]}, which {masks[index]} masks hold"
            yield Suspect(best, "", reason)
        if len(left) == before:
            return


def _share(seen: Seen, index: int) -> float:
    return 0.0 if seen.pixels is None else seen.pixels[index] / seen.pixels.sum()


def by_brightness(found: SeenList, count: int) -> list[Seen]:
    """Samples evenly spaced between the darkest and the brightest."""
    pairs = [(seen.facts.brightness, i) for i, seen in enumerate(found.seen) if seen.facts]
    order = [found.seen[i] for _, i in sorted(pairs)]
    places = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return [order[place] for place in places]


def _figure(seen: Seen, reason: str, reader: Reader, data: Data) -> str:
    """A sample's pictures, each enlarged by a click, and the colours in its mask."""
    try:
        pictures, classes = _pictures(seen, reader, data)
    except (UserError, ValueError):  # cannot be shown, or has changed since it was inspected
        return ""
    legend = "" if classes is None else "".join(
        f'<span class="key">{html.swatch(colour)}{escape(name)} {percent(share)}</span>'
        for colour, name, share in contents(classes, data)
    )  # fmt: skip
    scale = max(1.0, max(pictures[0].size) / FULL)
    notes = [reason, *([f"shown at 1/{scale:.1f} of its size"] if scale > 1 else [])]
    return (
        f'<figure><div class="views">{"".join(_enlargeable(p) for p in pictures)}</div>'
        f"<figcaption><b>{escape(seen.sample.image)}</b> {escape('; '.join(filter(None, notes)))}"
        f'<div class="legend">{legend}</div></figcaption></figure>'
    )


def _pictures(
    seen: Seen, reader: Reader, data: Data
) -> tuple[list[Image.Image], np.ndarray | None]:
    """The image, or both dates, and its mask over it (the later one), or beside it where they do
    not fit; its class indices."""
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


def _enlargeable(picture: Image.Image) -> str:
    """A picture that fills the window while its checkbox is set: no script is needed."""
    picture = picture.convert("RGB")
    picture.thumbnail((FULL, FULL), Image.Resampling.LANCZOS)
    return (
        '<label class="zoom"><input type="checkbox" aria-label="full size">'
        f'<span><img alt="" src="{html.jpeg(picture)}"></span></label>'
    )
