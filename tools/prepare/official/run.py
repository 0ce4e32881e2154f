"""Make a dataset of its downloads: plan, make missing files, count."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

from tqdm import tqdm

from dataset.split_files import write_lists
from tools.prepare.official.output import Root
from tools.prepare.official.plan import Task, shortfall
from util.errors import UserError, print_error

AHEAD = 4  # files per thread that are read before they are converted


def prepare(dataset: ModuleType, source: Path, root: Path, jobs: int, partial: bool) -> None:
    """Fill `root` from the downloads in `source`; finished files are skipped.

    Args:
        dataset: a module of this package, with `plan` and `COUNTS`.
        jobs: threads.
        partial: missing downloads and files are a warning.

    Raises `UserError` for missing or damaged downloads, files in the way, and wrong counts; files
    made until then stay.
    """
    if jobs < 1:
        raise UserError(f"--jobs {jobs}: expected at least 1")
    plan = dataset.plan(source, partial)
    tasks = plan.tasks()
    made = carry_out(tasks, Root(root), jobs)
    sets = ", ".join(f"{name} {part.whole()}" for name, part in plan.sets.items())
    print(f"{root}: {sets}; {made} files made, {len(tasks) - made} were there")
    lists = {root / name: lines for name, lines in plan.lists.items()}
    for remark in write_lists(lists).values():
        print(remark)
    lack = shortfall(plan.sets, dataset.COUNTS)
    if lack and not partial:
        raise UserError(f"{root}: {lack}; download incomplete files again, or give --partial")
    if lack:
        print_error(f"warning: {root}: {lack}")


def carry_out(tasks: list[Task], root: Root, jobs: int) -> int:
    """Make the files that are not finished; returns how many those were.

    One thread reads, in the order of the archives; the others convert and write.
    """
    left = [task for task in tasks if not root.has(task)]
    pending: deque[tuple[Task, Future]] = deque()
    with (
        tqdm(total=len(tasks), initial=len(tasks) - len(left), unit="file", disable=None) as bar,
        ThreadPoolExecutor(jobs) as pool,
    ):

        def finish() -> None:
            task, future = pending.popleft()
            future.result()
            root.record(task)
            bar.update()

        for task in left:
            pending.append((task, pool.submit(_make, task, task.member.read(), root)))
            if len(pending) > AHEAD * jobs:
                finish()
        while pending:
            finish()
    return len(left)


def _make(task: Task, content: Any, root: Root) -> None:
    root.make(task, _converted(task, task.convert, content) if task.convert else content)


def _converted(task: Task, convert: Callable[[Any], bytes], content: Any) -> bytes:
    try:
        return convert(content.read_bytes() if isinstance(content, Path) else content)
    except (OSError, ValueError, SyntaxError) as error:  # Pillow's of damaged files are among them
        member = task.member
        raise UserError(
            f"{member.archive.path}: {member.name} cannot be converted ({error}); download it again"
        ) from None
