"""Collect runs into a table, published scores without a run, and remarks."""

from typing import NamedTuple

import pandas as pd

from tools.results.groups import group_runs, tabulate
from tools.results.published import Published, beside, chosen_elsewhere, foreign_lists, select
from tools.results.runs import find_runs
from util.errors import UserError


class Results(NamedTuple):
    """Everything that `tools.results` shows."""

    score: str
    table: pd.DataFrame
    """See `tools.results.groups`."""
    missing: list[Published]
    """Published scores without a run."""
    remarks: list[str]


def collect(places: list[str], score: str = "miou", published: list[str] | None = None) -> Results:
    """Read the runs in some folders; raises `UserError` where none is finished."""
    scores = select(published or [], score)
    runs, faults = find_runs(places)
    groups, remarks = group_runs(runs)
    if not groups:
        reasons = "; ".join([*faults, *remarks])
        raise UserError(f"{' '.join(places)}: no finished run ({reasons})")
    table = tabulate(groups, score)
    missing = beside(table, groups, scores)
    remarks += [*foreign_lists(groups), *chosen_elsewhere(groups, scores)]
    return Results(score, table, missing, [*faults, *remarks])
