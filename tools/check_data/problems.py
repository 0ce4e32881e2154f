"""What in a dataset would break training, or spoil it: all of it, not just the first."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dataset.mask_kinds import disagreement
from dataset.val_size import too_few
from dataset.validation import location, overlaps
from tools.check_data.inspect import Seen, SeenList
from util.config.schema import Config
from util.config.types import IGNORE

MOSTLY = 0.5
"""A crop with a larger share of ignored pixels is mostly ignored."""
MANY_CROPS = 0.25
"""A larger share of mostly ignored crops is worth a warning."""

ERRORS = {
    "line": "faulty lines of lists, or images without a mask",
    "unreadable": "files that are missing or cannot be read",
    "size": "masks of another size than their image",
    "turned": "masks that lie as their image is stored, not as its EXIF orientation turns it",
    "mask": "masks of a wrong kind, or with values that are no class",
    "kinds": "masks stored in several ways, in which a value means several things",
    "nothing labelled": "lists without a labelled pixel",
    "overlap": "images that are listed twice",
    "leak": "pictures (by decoded pixels) that are both trained on and evaluated on, or in val and "
    "test",
}
WARNINGS = {
    "duplicate": "pictures (by decoded pixels) that occur twice",
    "empty mask": "masks in which nothing is labelled",
    "maybe turned": "masks that seem to lie as their image is stored, not as its EXIF orientation "
    "turns it: turn them alike, or remove the orientation",
    "absent class": "classes that never occur",
    "small val": "validation splits that are too small",
    "ignored crops": "random crops that are mostly ignored",
}
SIDES = {"labeled": "training", "unlabeled": "training", "val": "val", "test": "test"}


class Problem(NamedTuple):
    """One thing that is wrong."""

    kind: str
    """A key of ERRORS or WARNINGS."""
    list: str
    line: int
    message: str
    """Names list, line and file."""


def problems(lists: Sequence[SeenList], config: Config) -> list[Problem]:
    """All that is wrong, errors first, kind by kind."""
    found = [
        *(problem for seen in lists for problem in _of_list(seen, config)),
        *(
            Problem("overlap", lists[number].kind, line, message)
            for number, line, message in overlaps([seen.listed for seen in lists])
        ),
        *_repeated(lists),
    ]
    for some in (*([one] for one in lists), lists):
        if text := disagreement(s.stored for one in some for s in one.seen if s.stored):
            found.append(Problem("kinds", some[0].kind, 0, text))
            break
    order = [*ERRORS, *WARNINGS]
    return sorted(found, key=lambda problem: order.index(problem.kind))


def _of_list(found: SeenList, config: Config) -> Iterator[Problem]:
    pixels = found.pixels
    yield from (Problem("line", found.kind, f.line, str(f)) for f in found.faults)
    for seen in found.seen:
        yield from _of_sample(found.kind, seen)
    if found.kind == "unlabeled":
        return

    def problem(kind: str, message: str) -> Problem:
        return Problem(kind, found.kind, 0, f"{found.listed.name}: {message}")

    if not pixels[:IGNORE].any():
        yield problem("nothing labelled", "no mask has a labelled pixel")
        return
    absent = [name for name, n in zip(config.data.classes, pixels, strict=False) if not n]
    if absent:
        yield problem("absent class", f"never in its masks: {', '.join(absent)}")
    few = too_few(len(found.listed.samples), config.data.classes, found.masks_with)
    if found.kind == "val" and few:
        yield problem("small val", few)
    crops = found.crops
    if len(crops) and (share := (crops > MOSTLY).mean()) > MANY_CROPS:
        yield problem(
            "ignored crops",
            f"{share:.0%} of random crops of {config.crop_size} pixels are more than half ignored "
            f"({pixels[IGNORE] / pixels.sum():.0%} of the masks' pixels are; the rest is padding, "
            "where images are scaled to less than a crop: a smaller crop_size has less)",
        )  # fmt: skip


def _of_sample(list_kind: str, seen: Seen) -> Iterator[Problem]:
    sample = seen.sample
    faults = list(seen.faults)
    if seen.empty:
        faults.append(("empty mask", f"{sample.mask_file}: all pixels are ignored"))
    for kind, text in faults:
        yield Problem(kind, list_kind, sample.line, f"{sample.where}: {text}")


def _repeated(lists: Sequence[SeenList]) -> Iterator[Problem]:
    for kind, found, seen, same in same_pictures(lists):
        sample = seen.sample
        message = f"'{sample.image}' is the picture '{same.sample.image}' of {same.sample.where}"
        yield Problem(kind, found.kind, sample.line, f"{sample.where}: {message}")


def same_pictures(lists: Sequence[SeenList]) -> Iterator[tuple[str, SeenList, Seen, Seen]]:
    """Equal pictures under different names (one file twice is an overlap): whether that is a
    duplicate or a leak, the list, what was seen in it, and the picture that was seen before."""
    first: dict[str, tuple[SeenList, Seen]] = {}
    for found in lists:
        for seen in (seen for seen in found.seen if seen.digest):
            earlier, same = first.setdefault(str(seen.digest), (found, seen))
            if location(same.sample) != location(seen.sample):
                kind = "duplicate" if SIDES[earlier.kind] == SIDES[found.kind] else "leak"
                yield kind, found, seen, same
