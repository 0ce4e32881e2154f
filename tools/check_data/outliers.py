"""Find files to look at: faulty ones and unusual ones."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd

from tools.check_data.image_stats import ImageFacts
from tools.check_data.inspect import CheckedSample, CheckedSplit
from tools.check_data.problems import TITLES, Problem

MIN_CONTRAST = 2.0
"""Standard deviation of grey values below which an image shows nothing."""
MAX_BRIGHTNESS_Z = 4.0
"""Unusual distance from the median brightness, in standard deviations (estimated from the median
deviation)."""
MIN_BRIGHTNESS_GAP = 48
"""Least unusual distance from the median brightness, in grey levels."""
RARE_FORMAT_SHARE = 0.05
"""Share of the images below which a mode or depth is unusual."""
SATURATED = 0.5
"""Share of a band at its highest value above which it is unusual."""


class Highlight(NamedTuple):
    """A sample and the reason to look at it."""

    kind: str
    item: CheckedSample
    reason: str
    twin: CheckedSample | None = None
    """The same picture under another name."""


def highlights(
    splits: Sequence[CheckedSplit], found: Sequence[Problem], names: Sequence[str]
) -> list[Highlight]:
    """Return the samples to look at, kind by kind: problems first, then unusual files.

    `names`: of the images' bands.
    """
    readable = [(item, item.facts) for split in splits for item in split.items if item.facts]
    unsorted = [
        *(Highlight(TITLES[p.kind], p.item, p.message, p.twin) for p in found if p.item),
        *_unusual(readable),
        *(highlight for pair in readable for highlight in _odd_bands(*pair, names)),
    ]
    order = list(dict.fromkeys(highlight.kind for highlight in unsorted))
    return sorted(unsorted, key=lambda highlight: order.index(highlight.kind))


def _unusual(readable: Sequence[tuple[CheckedSample, ImageFacts]]) -> Iterator[Highlight]:
    """Yield files that differ from the others; of dark and bright ones the farthest first."""
    if not readable:
        return
    items = [item for item, _ in readable]
    facts = pd.DataFrame([facts for _, facts in readable])
    flat = facts.contrast < MIN_CONTRAST
    for i, row in facts[flat].iterrows():
        reason = f"all grey values are about {row.brightness:.0f}"
        yield Highlight("shows nothing", items[i], reason)
    for i, row in facts[facts.exif != 1].iterrows():
        yield Highlight("stored turned or mirrored", items[i], f"EXIF orientation {row.exif}")
    alike = facts.groupby(["mode", "bits"])["exif"].transform("size")
    for i, row in facts[alike < RARE_FORMAT_SHARE * len(facts)].iterrows():
        reason = f"mode {row['mode']}, {row.bits} bits"
        yield Highlight("another mode or depth than most", items[i], reason)
    grey = facts.brightness[~flat]
    off = (grey - grey.median()).abs()
    far = off[off > max(MAX_BRIGHTNESS_Z * 1.4826 * off.median(), MIN_BRIGHTNESS_GAP)]
    for i in far.sort_values(ascending=False, kind="stable").index:
        reason = f"mean grey value {grey[i]:.0f}, the median of all is {grey.median():.0f}"
        yield Highlight("much darker or brighter than most", items[i], reason)


def _odd_bands(item: CheckedSample, facts: ImageFacts, names: Sequence[str]) -> Iterator[Highlight]:
    """Yield bands without information, or with less than they could hold."""
    if not item.bands or facts.contrast < MIN_CONTRAST:
        return  # the image as a whole shows nothing
    shares = item.bands.ends[:, 1] / item.bands.steps.sum(1)
    for name, constant, share in zip(names, item.bands.constant, shares, strict=True):
        if constant:
            yield Highlight("band that shows nothing", item, f"{name} has one value everywhere")
        elif share > SATURATED:
            yield Highlight("saturated band", item, f"{share:.0%} of {name} has the highest value")
