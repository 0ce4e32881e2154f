"""Print the progress of a sweep, and time and memory of the rest, for `--dry-run`."""

from collections.abc import Sequence
from statistics import median

from tqdm import tqdm

from dataset.loaders import steps_per_epoch
from dataset.validation import read_splits
from engine.cost import step_cost
from engine.estimate import TITLE, describe_step
from tools.methods import method_of
from tools.sweep.schedule import RunProgress
from tools.sweep.spec import PlannedRun
from util.errors import UserError, counted, duration


def print_estimates(states: Sequence[RunProgress]) -> None:
    """Print the progress of all runs, and the time of the rest: from the steps of runs of the same
    kind, or else estimated with the memory, for each kind."""
    measured: dict[str, list[float]] = {}
    for state in states:
        state.say(state)
        if (run := state.run) and run.steps_done:  # not every epoch is validated
            measured.setdefault(state.planned.kind, []).append(run.seconds / run.steps_done)
    rest = [state for state in states if not state.is_done]
    timed = [state for state in rest if state.planned.kind in measured]
    try:
        left = sum(
            median(measured[s.planned.kind]) * _steps(s.planned, s.epochs_left()) for s in timed
        )
        time = f"; {duration(left)} on one device for {len(timed)}, by their kind's finished epochs"
    except UserError as error:
        time = f"; {error}"
    print(f"{counted(len(states), 'run')}, {len(rest)} not done{time if timed else ''}")
    kinds: dict[str, list[PlannedRun]] = {}
    for state in rest:
        if state.planned.kind not in measured:
            kinds.setdefault(state.planned.kind, []).append(state.planned)
    if kinds:
        untimed = counted(len(rest) - len(timed), "run")
        print(f"without a finished epoch of their kind: {untimed}; {TITLE}", flush=True)
    for kind, runs in tqdm(kinds.items(), "estimating", unit="kind", disable=None, leave=False):
        print(kind, _estimate(runs), sep="\n", flush=True)


def _estimate(runs: Sequence[PlannedRun]) -> str:
    """Describe the cost of runs of one kind, or the error that prevents the estimate."""
    config, method = runs[0].load(), method_of(runs[0].method)
    try:
        images = method.images_per_step(config)
        cost = step_cost(method, config, images, config.micro_batch or images)
        steps = sum(_steps(run, run.load().epochs) for run in runs)
        return describe_step(cost, config, steps, counted(len(runs), "run"))
    except UserError as error:
        return f"  {error}"


def _steps(planned: PlannedRun, epochs: int) -> int:
    """Return the optimizer steps of epochs; raises `UserError` for a missing split file."""
    config, method = planned.load(), method_of(planned.method)
    labeled = unlabeled = 0
    if not config.epoch_length:
        lists = read_splits(config.data, method.unlabeled)
        labeled, unlabeled = len(lists.labeled.samples), len(lists.unlabeled.samples)
    return epochs * steps_per_epoch(config, labeled, unlabeled, method.images_per_step(config))
