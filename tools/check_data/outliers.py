"""Files that are worth a look, though not all of them are wrong."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tools.check_data.image_stats import ImageFacts
from tools.check_data.inspect import Seen, SeenList
from tools.check_data.problems import same_pictures

FLAT = 2.0
"""An image whose grey values deviate less shows nothing."""
FAR = 4.0
"""Brightness that is this many standard deviations off (estimated from the median of the
deviations), and more than `FAR_GREY`, is unusual."""
FAR_GREY = 48
"""Grey values of 255: smaller differences are not unusual."""
RARE = 0.05
"""A mode or depth of a smaller share of the images is unusual."""
SATURATED = 0.5
"""A larger share of a band at its highest value is unusual."""


TITLES = {
    "size": "mask of another size",
    "mask": "mask that cannot be used",
    "turned": "mask that lies otherwise than its image",
    "maybe turned": "mask that may lie otherwise than its image",
    "leak": "trained on and evaluated on",
    "duplicate": "occurs twice",
}
"""What problems are called beside a picture, where not by their kind."""


class Suspect(NamedTuple):
    """A file and what is strange about it."""

    seen: Seen
    kind: str
    reason: str
    twin: Seen | None = None
    """The same picture under another name."""


def suspects(lists: Sequence[SeenList], names: Sequence[str]) -> list[Suspect]:
    """What to look at, kind by kind: what is wrong first, then what is only unusual.

    `names`: of the images' bands.
    """
    every = [seen for found in lists for seen in found.seen]
    found = [
        *(
            Suspect(seen, TITLES.get(kind, kind), why)
            for seen in every
            for kind, why in seen.faults
            if kind != "unreadable"  # which cannot be shown
        ),
        *(
            Suspect(seen, TITLES[kind], f"the same picture as {same.sample.image}", same)
            for kind, _, seen, same in same_pictures(lists)
        ),
        *(Suspect(seen, "empty mask", "all pixels are ignored") for seen in every if seen.empty),
        *_unusual([(seen, seen.facts) for seen in every if seen.facts]),
        *(Suspect(seen, *odd) for seen in every if seen.bands for odd in _odd_bands(seen, names)),
    ]
    order = list(dict.fromkeys(suspect.kind for suspect in found))
    return sorted(found, key=lambda suspect: order.index(suspect.kind))


def _unusual(images: Sequence[tuple[Seen, ImageFacts]]) -> Iterator[Suspect]:
    """What sets a file apart from the others."""
    modes = Counter((facts.mode, facts.bits) for _, facts in images)
    for seen, facts in images:
        if facts.contrast < FLAT:
            grey = f"all grey values are about {facts.brightness:.0f}"
            yield Suspect(seen, "shows nothing", grey)
        if facts.exif != 1:
            turned = f"EXIF orientation {facts.exif}"
            yield Suspect(seen, "stored turned or mirrored", turned)
        if modes[facts.mode, facts.bits] < RARE * len(images):
            mode = f"mode {facts.mode}, {facts.bits} bits"
            yield Suspect(seen, "another mode or depth than most", mode)
    shown = [(seen, facts.brightness) for seen, facts in images if facts.contrast >= FLAT]
    if shown:
        yield from _dark_and_bright(shown)


def _odd_bands(seen: Seen, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Kind and reason for bands that say nothing, or not all that they might."""
    if not seen.bands or not seen.facts or seen.facts.contrast < FLAT:
        return  # then the image as a whole is strange
    shares = seen.bands.ends[:, 1] / seen.bands.steps.sum(1)
    for name, constant, share in zip(names, seen.bands.constant, shares, strict=True):
        if constant:
            yield "band that shows nothing", f"{name} has one value everywhere"
        elif share > SATURATED:
            yield "saturated band", f"{share:.0%} of {name} has the highest value"


def _dark_and_bright(images: Sequence[tuple[Seen, float]]) -> Iterator[Suspect]:
    """The farthest from the median first."""
    grey = np.array([brightness for _, brightness in images])
    median = float(np.median(grey))
    off = abs(grey - median)
    limit = max(FAR * 1.4826 * float(np.median(off)), FAR_GREY)
    for place in np.argsort(-off, kind="stable").tolist():
        if off[place] > limit:
            reason = f"mean grey value {grey[place]:.0f}, the median of all is {median:.0f}"
            yield Suspect(images[place][0], "much darker or brighter than most", reason)
