"""All there is to show of some runs: rows of a table, and remarks on what these leave out."""

from typing import NamedTuple

from tools.results.groups import Row, group_runs, rows_of
from tools.results.published import Published, beside, chosen_elsewhere, foreign_lists, select
from tools.results.runs import find_runs
from util.errors import UserError


class Results(NamedTuple):
    """What `tools.results` shows of them."""

    score: str
    rows: list[Row]
    missing: list[Published]
    """Published scores beside which there is no run."""
    remarks: list[str]


def collect(places: list[str], score: str = "miou", published: list[str] | None = None) -> Results:
    """All that is to be shown of the runs at some places; raises `UserError`."""
    scores = select(published or [], score)
    runs, faults = find_runs(places)
    groups, remarks = group_runs(runs)
    if not groups:
        reasons = "; ".join([*faults, *remarks])
        raise UserError(f"{' '.join(places)}: no finished run ({reasons})")
    rows, missing = beside(rows_of(groups, score), groups, scores)
    remarks += [*foreign_lists(groups), *chosen_elsewhere(groups, scores)]
    return Results(score, rows, missing, [*faults, *remarks])
