"""Estimate memory and time of runs of a sweep that have no measured epochs."""

from collections.abc import Iterator, Sequence

from tqdm import tqdm

from dataset.loaders import steps_per_epoch
from dataset.validation import read_lists
from engine.cost import step_cost
from engine.estimate import describe_step
from engine.method import Method
from tools.methods import method_of
from tools.sweep.spec import Planned
from util.config.schema import Config
from util.errors import UserError, counted


def estimates(runs: Sequence[Planned]) -> Iterator[str]:
    """Yield a description for each kind of run, or the error that prevents the estimate."""
    kinds: dict[str, list[Planned]] = {}
    for run in runs:
        kinds.setdefault(run.kind, []).append(run)
    for kind, alike in tqdm(kinds.items(), "estimating", unit="kind", disable=None, leave=False):
        config, method = alike[0].load(), method_of(alike[0].method)
        try:
            images = method.images_per_step(config)
            cost = step_cost(method, config, images, config.micro_batch or images)
            steps = sum(_steps(run.load(), method, images) for run in alike)
            yield f"{kind}\n{describe_step(cost, config, steps, counted(len(alike), 'run'))}"
        except UserError as error:
            yield f"{kind}\n  {error}"


def _steps(config: Config, method: type[Method], images: int) -> int:
    """Return the optimizer steps of a run; raises `UserError` for a missing split file."""
    labeled = unlabeled = 0
    if not config.epoch_length:
        lists = read_lists(config.data, method.unlabeled)
        labeled, unlabeled = len(lists.labeled.samples), len(lists.unlabeled.samples)
    return config.epochs * steps_per_epoch(config, labeled, unlabeled, images)
