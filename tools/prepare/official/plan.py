"""Plan of the files to make of a dataset's downloads."""

from collections.abc import Callable
from typing import Any, NamedTuple

from tools.prepare.official.archives import Member

NAMED = 3  # files of many that a message names


class Task(NamedTuple):
    """A file to make; without `convert` it is the member as it is."""

    target: str  # below the dataset's root
    member: Member
    convert: Callable[[Any], bytes] | None = None


class Tasks(NamedTuple):
    """Tasks for an image and its mask; None for a file that no download holds."""

    image: Task | None
    mask: Task | None


class Set(NamedTuple):
    """Samples by name, and where their two files come from."""

    samples: dict[str, Tasks]
    images_from: str
    masks_from: str

    def whole(self) -> int:
        """Return the number of samples with image and mask."""
        return sum(None not in sample for sample in self.samples.values())


class Plan(NamedTuple):
    """The sets of a dataset, and its further files."""

    sets: dict[str, Set]
    others: tuple[Task, ...] = ()
    lists: dict[str, list[str]] = {}
    """Lines of list files, by their path below the root."""

    def tasks(self) -> list[Task]:
        """Return all tasks, in the order in which archives are read fastest."""
        samples = [sample for part in self.sets.values() for sample in part.samples.values()]
        tasks = [task for sample in samples for task in sample if task]
        tasks += self.others
        return sorted(tasks, key=lambda t: (t.member.archive.path, t.member.place))


def tasks_of(
    members: dict[str, Member], target: str, convert: Callable[[Any], bytes] | None = None
) -> dict[str, Task]:
    """Return a task for each member, by the same names; `target` has {} for the name."""
    return {name: Task(target.format(name), m, convert) for name, m in members.items()}


def pair(images: dict[str, Task], masks: dict[str, Task]) -> dict[str, Tasks]:
    """Return samples of images and masks of the same name."""
    return {name: Tasks(images.get(name), masks.get(name)) for name in sorted(images | masks)}


def shortfall(sets: dict[str, Set], expected: dict[str, int]) -> str:
    """Describe sets that differ from their official sizes; '' where none does."""
    return "; ".join(filter(None, (_lack(n, part, expected[n]) for n, part in sets.items())))


def _lack(name: str, part: Set, expected: int) -> str:
    whole = part.whole()
    if whole == expected:
        return ""
    texts = [f"{name} has {whole} images with a mask, expected {expected}"]
    for kind, origin in (("image", part.images_from), ("mask", part.masks_from)):
        lacking = [n for n, sample in part.samples.items() if getattr(sample, kind) is None]
        if lacking:
            names = ", ".join(lacking[:NAMED]) + (", ..." if len(lacking) > NAMED else "")
            texts.append(f"{origin} lacks {len(lacking)} ({names})")
    unknown = expected - len(part.samples)
    if unknown > 0:
        origins = dict.fromkeys((part.images_from, part.masks_from))
        texts.append(f"{unknown} are not in {' or '.join(origins)} at all")
    return ", ".join(texts)
