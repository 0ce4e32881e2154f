"""What runs of a sweep need of a GPU, where there are no epochs of their kind to go by."""

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
from util.errors import UserError


def estimates(runs: Sequence[Planned]) -> Iterator[str]:
    """For each kind of these runs, a step of which is estimated once, some lines in the words of
    the methods' `--dry-run`; one says so where torch or a missing list leaves it open."""
    kinds: dict[str, list[Planned]] = {}
    for planned in runs:
        kinds.setdefault(planned.kind, []).append(planned)
    for kind, alike in tqdm(kinds.items(), "estimating", unit="kind", disable=None, leave=False):
        config, method = alike[0].load(), method_of(alike[0].method)
        try:
            images = method.images_per_step(config)
            cost = step_cost(method, config, images, config.micro_batch or images)
            steps = sum(_steps(planned.load(), method, images) for planned in alike)
            count = f"{len(alike)} run{'s' * (len(alike) > 1)}"
            yield f"{kind}\n{describe_step(cost, config, steps, count)}"
        except UserError as error:
            yield f"{kind}\n  {error}"


def _steps(config: Config, method: type[Method], images: int) -> int:
    """Optimizer steps of a run; raises `UserError` where its lists are not there."""
    labeled = unlabeled = 0
    if not config.epoch_length:
        lists = read_lists(config.data, method.unlabeled)
        labeled, unlabeled = len(lists.labeled.samples), len(lists.unlabeled.samples)
    return config.epochs * steps_per_epoch(config, labeled, unlabeled, images)
