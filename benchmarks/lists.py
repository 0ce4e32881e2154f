"""Large lists: how long a run takes to read and check them, and what they cost in memory."""

import argparse
from multiprocessing import active_children
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.measure import seconds
from dataset.check import check_contents, check_existence, refuse_overlaps
from dataset.folders import read_samples
from dataset.lists import Lists, list_line, write_lists
from util.config import Data, Listed
from util.errors import UserError

LINKS = 10_000
"""Links to one file; some file systems allow 65000."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--labeled", type=int, default=118_287, help="labelled images (default: as many as COCO)")
    add("--unlabeled", type=int, default=123_403, help="unlabelled images, below another root")
    add("--val", type=int, default=5_000, help="validation images")
    add("--workers", type=int, nargs="+", default=[0, 2, 8], help="numbers of data workers")
    add("--tmp", type=Path, help="folder for the files: links to tiny images, removed in the end")


def run(options: argparse.Namespace) -> None:
    """Print seconds by part, then memory by number of workers (Linux alone tells it)."""
    if not Path("/proc/self/smaps_rollup").exists():
        raise UserError("/proc/self/smaps_rollup: no such file; this benchmark needs Linux")
    with TemporaryDirectory(dir=options.tmp) as folder:
        data = make_files(Path(folder), options.labeled, options.unlabeled, options.val)
        before = memory().unique
        with seconds("start-up"):
            lists = read_and_check(data)
    print(f"{'lists in memory':<24}{memory().unique - before:>8.1f} MiB\n")
    print(f"{'MiB':<12}{'a worker, idle':>20}{'all samples read':>20}{'all processes (PSS)':>24}")
    for workers in options.workers:
        idle, read = (with_workers(lists, workers, passes) for passes in (0, 1))
        share = sum(process.share for process in read)
        print(f"{workers} workers{unique(idle):>23}{unique(read):>20}{share:>24.0f}", flush=True)


def make_files(folder: Path, labeled: int, unlabeled: int, val: int) -> Data:
    """Lists, with images and masks that are links to tiny ones."""
    data, more = folder / "data", folder / "more"
    lists = {
        folder / "labeled.txt": make_links(data, labeled, "train2017/*.jpg", "masks/*.png"),
        folder / "unlabeled.txt": make_links(more, unlabeled, "unlabeled2017/*.jpg"),
        folder / "val.txt": make_links(data, val, "val2017/*.jpg", "val_masks/*.png"),
    }
    write_lists(lists)
    train, extra, held_out = lists
    return Data(
        name="large",
        root=data,
        classes=["thing", "other"],
        labeled=train,
        unlabeled=Listed(list=extra, root=more),
        val=held_out,
    )


def make_links(root: Path, count: int, *patterns: str) -> list[str]:
    """Files, a number for `*`; returns their list lines."""
    for pattern in patterns:
        (root / pattern).parent.mkdir(parents=True)
    lines = []
    for number in range(count):
        files = [pattern.replace("*", f"{number:012}") for pattern in patterns]
        if number % LINKS == 0:
            first = [root / file for file in files]
            for path in first:
                Image.new("L", (8, 8)).save(path)
        else:
            for file, path in zip(files, first, strict=True):
                (root / file).hardlink_to(path)
        lines.append(list_line(*files))
    return lines


def read_and_check(data: Data) -> Lists:
    """What `engine.training.prepare` does with lists and files, part by part."""
    assert data.labeled and data.unlabeled
    with seconds("  reading"):
        lists = Lists(
            read_samples(data.labeled, data.root, masks=True),
            read_samples(data.unlabeled, data.root, masks=False),
            read_samples(data.val, data.root, masks=True),
        )
    with seconds("  duplicates"):
        refuse_overlaps(*lists)
    with seconds("  existence"):
        for listed in lists:
            check_existence(listed)
    with seconds("  headers, some images"):
        for listed in lists:
            check_contents(listed, data, warn=lambda _: None)
    return lists


class Memory(NamedTuple):
    """MiB of a process."""

    unique: float
    """Its alone."""
    share: float
    """The same, and its share of what several processes use (PSS)."""


def memory(process: int | str = "self") -> Memory:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    kib = {key: int(value.split()[0]) for key, value in (line.split(":") for line in lines)}
    return Memory((kib["Private_Clean"] + kib["Private_Dirty"]) / 1024, kib["Pss"] / 1024)


class Touching(Dataset):
    """Every item reads all samples `passes` times, in the process that makes it."""

    def __init__(self, lists: Lists, passes: int):
        self.lists, self.passes = lists, passes

    def __getitem__(self, index: int) -> int:
        for listed in list(self.lists) * self.passes:
            for sample in listed.samples:
                assert sample.image
        return index


def with_workers(lists: Lists, workers: int, passes: int) -> list[Memory]:
    """Memory of this process and of its workers, when each has made an item."""
    items = range(workers or 1)
    made = iter(DataLoader(Touching(lists, passes), None, sampler=items, num_workers=workers))
    for _ in items:
        next(made)
    return [memory(), *(memory(str(child.pid)) for child in active_children())]


def unique(processes: list[Memory]) -> str:
    """The mean of the workers', which follow the main process."""
    workers = [process.unique for process in processes[1:]]
    return f"{sum(workers) / len(workers):.1f}" if workers else "-"
