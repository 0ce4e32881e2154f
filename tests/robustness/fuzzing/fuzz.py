"""Search for bad input that a command neither accepts nor refuses in one line."""

import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from tests.conftest import METHODS
from tests.robustness.fuzzing import parsers, runs
from tests.robustness.fuzzing.verdict import RAN, REFUSED
from tests.robustness.fuzzing.world import World


class Kind(NamedTuple):
    """Kind of bad input."""

    what: str
    share: float
    """Share of this kind in all cases."""
    cases: Callable[[World], SearchStrategy[Any]]
    judge: Callable[[World, Any], str]


TRAIN, USE = sorted(METHODS), ["evaluate", "predict", "tools.check_data"]
KINDS = {
    "config": Kind("config files", 0.3, parsers.config_cases, parsers.judge_config),
    "setting": Kind("--set", 0.15, parsers.setting_cases, parsers.judge_setting),
    "list": Kind("lists", 0.13, parsers.list_cases, parsers.judge_list),
    "picture": Kind("images, masks", 0.2, parsers.picture_cases, parsers.judge_picture),
    "checkpoint": Kind("checkpoint files", 0.1, parsers.checkpoint_cases, parsers.judge_checkpoint),
    "state": Kind("contents of checkpoints", 0.04, runs.state_cases, runs.judge_state),
    "train": Kind("whole trainings", 0.05, partial(runs.run_cases, TRAIN), runs.judge_run),
    "use": Kind("evaluations, predictions", 0.025, partial(runs.run_cases, USE), runs.judge_run),
}


def explore(kind: Kind, world: World, cases: int, seed: int) -> Counter[str]:
    """Judge cases drawn from a seed; return how many ran and how many were refused.

    Raises `Fault` with the smallest failing case that hypothesis finds.
    """
    tally: Counter[str] = Counter()

    @hypothesis.seed(seed)
    @settings(
        max_examples=cases,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(kind.cases(world))
    def judge(case: Any) -> None:
        tally[kind.judge(world, case)] += 1

    judge()
    return tally


def fuzz(cases: int, seed: int) -> int:
    """Search all kinds and print a line for each; return the number of kinds with a fault."""
    faulty = 0
    print(f"{'':<26}{'cases':>7}{REFUSED:>9}{RAN:>7}{'seconds':>9}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        for kind in KINDS.values():
            begin = time.monotonic()
            try:
                tally = explore(kind, world, max(1, round(kind.share * cases)), seed)
            except Exception as error:
                faulty += 1
                print(
                    f"{kind.what}: FAULT", *traceback.format_exception(error), sep="\n", flush=True
                )
                continue
            seconds = time.monotonic() - begin
            counts = f"{tally.total():>7}{tally[REFUSED]:>9}{tally[RAN]:>7}"
            print(f"{kind.what:<26}{counts}{seconds:>9.1f}", flush=True)
    return faulty
