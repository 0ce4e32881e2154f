"""Fill a dataset's folder from its downloads: plan, make missing files, count."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from dataset.split_files import write_split_files
from tools.prepare.official.archives import Archive, Download, Member, find_all
from tools.prepare.official.output import OutputFolder
from util.errors import UserError, counted, join_first, print_error

READ_AHEAD = 4
"""Files per thread that are read before they are converted."""
NAMED = 3
"""Missing files that a message names."""
AGAIN = "Fix: download again, or --partial to continue with what is there"


class FileToMake(NamedTuple):
    """A file to make; without `convert`, a copy of the member."""

    target: str
    """Path below the dataset's root."""
    member: Member
    convert: Callable[[Any], bytes] | None = None


Tasks = dict[str, FileToMake]
"""Tasks by name of the sample."""


def tasks_of(
    archive: Archive, pattern: str, target: str = "", convert: Callable[[Any], bytes] | None = None
) -> Tasks:
    """Return a task for each member whose path fits a pattern such as images/{}.jpg, by the name at
    the {}, which replaces that of `target` (default: the pattern), too."""
    return {
        name: FileToMake((target or pattern).format(name), member, convert)
        for name, member in archive.files(pattern).items()
    }


class SampleSet(NamedTuple):
    """Images and masks of a set."""

    images: Tasks
    masks: Tasks

    def complete(self) -> int:
        """Return the number of samples with image and mask."""
        return len(self.images.keys() & self.masks.keys())

    def shortfall(self, name: str, expected: int, downloads: str) -> str:
        """Describe the difference from the official size; "" for none.

        `downloads`: the dataset's archives, named where no archive holds such files.
        """
        if self.complete() == expected:
            return ""
        texts = [f"{name} has {counted(self.complete(), 'image')} with a mask, expected {expected}"]
        for kind, tasks, others in (
            ("images", self.images, self.masks),
            ("masks", self.masks, self.images),
        ):
            if lacking := sorted(others.keys() - tasks.keys()):
                origins = sorted({task.member.archive.path.name for task in tasks.values()})
                where = " or ".join(origins) or downloads
                texts.append(f"missing {kind} of {where}: {join_first(lacking, NAMED)}")
        absent = expected - len(self.images.keys() | self.masks.keys())
        if absent > 0:
            texts.append(f"missing images and masks of {downloads}: {absent}")
        return ", ".join(texts)


class Plan(NamedTuple):
    """The sets of a dataset, further files, and split files to write."""

    sets: dict[str, SampleSet]
    others: tuple[FileToMake, ...] = ()
    split_files: dict[str, list[str]] = {}
    """Lines of split files, by path below the root."""
    faults: Sequence[str] = ()
    """Problems of the downloads; warnings with --partial, otherwise an error."""

    def tasks(self) -> list[FileToMake]:
        """Return all tasks, in the order in which archives are read fastest."""
        of_sets = (t for s in self.sets.values() for t in (*s.images.values(), *s.masks.values()))
        return sorted(
            (*of_sets, *self.others), key=lambda t: (t.member.archive.path, t.member.place)
        )


@dataclass
class Dataset:
    """A dataset that an official page offers."""

    about: str | None
    """Help of its command."""
    downloads: tuple[tuple[Download, ...], ...]
    """At least one download of each group is needed."""
    counts: dict[str, int]
    """Official number of samples of each set."""
    plan: Callable[[dict[Download, Archive]], Plan]
    """Returns the plan; archives of missing downloads are empty."""


def prepare(dataset: Dataset, source: Path, root: Path, jobs: int, partial: bool) -> None:
    """Fill `root` from the downloads in `source`, in `jobs` threads; finished files are skipped.

    `partial`: missing downloads and files are a warning. Raises `UserError` for missing or damaged
    downloads, files in the way, and wrong counts; files made until then stay.
    """
    plan = dataset.plan(find_all(source, dataset.downloads, partial))
    if plan.faults and not partial:
        raise UserError(f"{plan.faults[0]}. {AGAIN}")
    tasks = plan.tasks()
    made = carry_out(tasks, OutputFolder(root), jobs)
    sets = ", ".join(f"{name} {part.complete()}" for name, part in plan.sets.items())
    print(f"{root}: {sets}; {made} files made, {len(tasks) - made} were there")
    for remark in write_split_files(
        {root / name: lines for name, lines in plan.split_files.items()}
    ):
        print(remark)
    for fault in plan.faults:
        print_error(f"warning: {fault}")
    downloads = " or ".join(d.archive for group in dataset.downloads for d in group)
    lack = "; ".join(filter(None, (
        part.shortfall(name, dataset.counts[name], downloads) for name, part in plan.sets.items()
    )))  # fmt: skip
    if lack and not partial:
        raise UserError(f"{root}: {lack}. {AGAIN}")
    if lack:
        print_error(f"warning: {root}: {lack}")


def carry_out(tasks: list[FileToMake], root: OutputFolder, jobs: int) -> int:
    """Make the unfinished files; returns their number.

    One thread reads, in the order of the archives; the others convert and write.
    """
    left = [task for task in tasks if not root.has(task.target, task.member.archive.title)]
    pending: deque[tuple[FileToMake, Future]] = deque()
    with (
        tqdm(total=len(tasks), initial=len(tasks) - len(left), unit="file", disable=None) as bar,
        ThreadPoolExecutor(jobs) as pool,
    ):

        def finish() -> None:
            task, future = pending.popleft()
            future.result()
            root.record(task.target, task.member.archive.title)
            bar.update()

        for task in left:
            if len(pending) > READ_AHEAD * jobs:
                finish()
            pending.append((task, pool.submit(_make, task, task.member.read(), root)))
        while pending:
            finish()
    return len(left)


def _make(task: FileToMake, content: Any, root: OutputFolder) -> None:
    member = task.member
    if task.convert:
        with member.reporting("cannot be converted"):
            content = task.convert(content.read_bytes() if isinstance(content, Path) else content)
    root.make(task.target, content, member.archive.title)
