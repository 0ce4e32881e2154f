"""Find files that are worth a look, though not all of them are wrong."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd

from tools.check_data.inspect import Seen, SeenList
from tools.check_data.problems import Problem

FLAT = 2.0
"""An image with a lower standard deviation of grey values shows nothing."""
FAR = 4.0
"""Standard deviations (estimated from the median deviation) from the median brightness; what is
further away, and further than `FAR_GREY`, is unusual."""
FAR_GREY = 48
RARE = 0.05
"""A mode or depth of a smaller share of the images is unusual."""
SATURATED = 0.5
"""A larger share of a band at its highest value is unusual."""
TITLES = {
    "size": "mask of another size",
    "mask": "mask that cannot be used",
    "turned": "mask that ignores the EXIF orientation",
    "maybe turned": "mask that may ignore the EXIF orientation",
    "leak": "trained on and evaluated on",
    "duplicate": "occurs twice",
}
"""Titles of problems beside a picture; default: the kind."""


class Suspect(NamedTuple):
    """A sample and the reason to look at it."""

    kind: str
    seen: Seen
    reason: str
    twin: Seen | None = None
    """The same picture under another name."""


def suspects(
    lists: Sequence[SeenList], found: Sequence[Problem], names: Sequence[str]
) -> list[Suspect]:
    """Return what to look at, kind by kind: problems first, then unusual files.

    `names`: of the images' bands.
    """
    every = [seen for listed in lists for seen in listed.seen if seen.facts]
    some = [
        *(
            Suspect(TITLES.get(p.kind, p.kind), p.seen, _without_line(p.message, p.seen), p.twin)
            for p in found
            if p.seen
        ),
        *_unusual(every),
        *(suspect for seen in every for suspect in _odd_bands(seen, names)),
    ]
    order = list(dict.fromkeys(suspect.kind for suspect in some))
    return sorted(some, key=lambda suspect: order.index(suspect.kind))


def _without_line(message: str, seen: Seen) -> str:
    return message.removeprefix(f"{seen.sample.where}: ")


def _unusual(every: Sequence[Seen]) -> Iterator[Suspect]:
    """Yield files that differ from the others; of dark and bright ones the farthest first."""
    facts = pd.DataFrame([seen.facts for seen in every if seen.facts])
    if facts.empty:
        return
    flat = facts.contrast < FLAT
    for i, row in facts[flat].iterrows():
        yield Suspect("shows nothing", every[i], f"all grey values are about {row.brightness:.0f}")
    for i, row in facts[facts.exif != 1].iterrows():
        yield Suspect("stored turned or mirrored", every[i], f"EXIF orientation {row.exif}")
    alike = facts.groupby(["mode", "bits"])["exif"].transform("size")
    for i, row in facts[alike < RARE * len(facts)].iterrows():
        reason = f"mode {row['mode']}, {row.bits} bits"
        yield Suspect("another mode or depth than most", every[i], reason)
    grey = facts.brightness[~flat]
    off = (grey - grey.median()).abs()
    far = off[off > max(FAR * 1.4826 * off.median(), FAR_GREY)]
    for i in far.sort_values(ascending=False, kind="stable").index:
        reason = f"mean grey value {grey[i]:.0f}, the median of all is {grey.median():.0f}"
        yield Suspect("much darker or brighter than most", every[i], reason)


def _odd_bands(seen: Seen, names: Sequence[str]) -> Iterator[Suspect]:
    """Yield bands without information, or with less than they could hold."""
    if not seen.bands or not seen.facts or seen.facts.contrast < FLAT:
        return  # the image as a whole shows nothing
    shares = seen.bands.ends[:, 1] / seen.bands.steps.sum(1)
    for name, constant, share in zip(names, seen.bands.constant, shares, strict=True):
        if constant:
            yield Suspect("band that shows nothing", seen, f"{name} has one value everywhere")
        elif share > SATURATED:
            yield Suspect("saturated band", seen, f"{share:.0%} of {name} has the highest value")
