"""Collect runs into a table, and print it as text, Markdown, LaTeX, CSV or JSON."""

import json
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, NamedTuple

import pandas as pd

from tools.results.groups import NOT_SHOWN, Group, group_runs, has_score, tabulate
from tools.results.published import Published, remarks_on, select
from tools.results.runs import find_runs
from util.errors import UserError, printable
from util.io import csv_text
from util.tables import Rows, markdown_table, text_table

TEXT_COLUMNS = {"method", "scored", "network", "dataset", "partition", "commit", "settings"}
"""Columns of text; all others hold numbers."""
ALWAYS_SHOWN = ("method", "best ", "in epoch", "last ", "published", "s/step", "GiB")
"""Beginnings of columns that are shown even where all rows have the same value."""


class Results(NamedTuple):
    """Runs and published scores that `tools.results` shows."""

    score: str
    table: pd.DataFrame
    """See `tools.results.groups`."""
    missing: list[Published]
    """Published scores without a run."""
    remarks: list[str]


def collect(places: list[str], score: str = "miou", published: list[str] | None = None) -> Results:
    """Read the runs in some folders; raises `UserError` where none is finished or has the score."""
    scores = select(published or [], score)
    runs, faults = find_runs(places)
    finished, remarks = group_runs(runs)
    if not finished:
        reasons = "; ".join([*faults, *remarks])
        raise UserError(f"{' '.join(places)}: no finished run ({reasons})")
    groups = [group for group in finished if has_score(group, score)]
    if not groups:
        classes = ", ".join(finished[0][0].config.data.classes)
        raise UserError(
            f"--score {score}: not in these runs; expected miou, accuracy, dice (only of runs with "
            f"evaluation.volume_pattern) or a class: {classes}"
        )
    unscored = [run.path for group in finished if group not in groups for run in group]
    remarks += [f"left out, has no score '{score}': {path}" for path in unscored]
    table = tabulate(groups, score)
    targets = [next((p for p in scores if p.is_of(group)), None) for group in groups]
    values = [p.value if (p := targets[index]) else None for index in table.group]
    # A teacher that labels nothing (`method.teacher: self`) is not the published network.
    by_student = [groups[index][0].config.method.get("teacher") == "self" for index in table.group]
    other = table.duplicated("group").where(by_student, table.duplicated("group", keep="last"))
    table["published"] = pd.Series(values, dtype=float).mask(other)
    missing = [one for one in scores if one not in targets]
    remarks += _selection_remarks(groups, score)
    return Results(score, table, missing, [*faults, *remarks, *remarks_on(groups, scores)])


def _selection_remarks(groups: Sequence[Group], score: str) -> list[str]:
    """Remark where another score than the one shown selected the best checkpoints."""
    selected = {
        run.config.evaluation.select.removeprefix("iou:") for group in groups for run in group
    }
    if selected <= {score}:
        return []
    names = ", ".join(sorted(selected))
    return [f"best {score}: the best of all epochs; best.pth was selected by {names}"]


def cells_of(results: Results) -> tuple[pd.DataFrame, list[str]]:
    """Return the cells to show, as text, and lines above: what the scores are, and the values that
    all rows share."""
    table, score = results.table, "mIoU" if results.score == "miou" else results.score
    cells = pd.DataFrame({
        "method": table.method,
        "scored": table.scored,
        "network": table.network,
        "dataset": table.dataset,
        "partition": table.partition,
        "labels": table.run_labels.map(span),
        "seeds": table.seeds.map(len).astype(str),
        f"best {score}": _spread(table.best_mean, table.best_std),
        "in epoch": table.best_epochs.map(span),
        f"last {score}": _spread(table.last_mean, table.last_std),
        "published": _formatted(table.published, ".1f"),
        "epochs": _formatted(table.epochs),
        "steps": table.run_steps.map(span),
        "s/step": _formatted(table.step_seconds, ".3g"),
        "GiB": _formatted(table.peak_memory / 2**30, ".2f"),
        "commit": table.commit,
        "settings": table.settings,
    })  # fmt: skip
    if (cells.partition == cells.labels).all():
        cells = cells.drop(columns="partition")
    cells = cells.loc[:, (cells != "").any()].map(printable).rename(columns=printable)
    alike = [
        name for name in cells
        if len(cells) > 1 and cells[name].nunique() == 1 and not name.startswith(ALWAYS_SHOWN)
    ]  # fmt: skip
    above = "; ".join(f"{name}: {cells[name].iloc[0]}" for name in alike)
    lines = ["scores on the validation split, in percent", *([above] if above else [])]
    return cells.drop(columns=alike), lines


def _formatted(values: Any, form: str = "d") -> list[str]:
    return ["" if pd.isna(value) else format(value, form) for value in values]


def _spread(means: Any, stds: Any) -> list[str]:
    return [
        f"{mean:.1f}" + ("" if pd.isna(std) else f" ± {std:.1f}")
        for mean, std in zip(means, stds, strict=True)
    ]


def span(numbers: Collection[int]) -> str:
    """Return the lowest and the highest of some numbers, as text; "" for none."""
    if not numbers:
        return ""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}–{high}"


def _lines_below(results: Results, mark: str) -> list[str]:
    """Return the lines below the table: published scores without a run, and remarks."""
    unmatched = [
        f"published, without a run: {p.name} {p.method} "
        f"{' '.join(filter(None, (p.network, p.backbone)))} {p.value:.1f} ({p.source})"
        for p in results.missing
    ]
    lines = [mark + printable(line) for line in [*unmatched, *results.remarks]]
    return ["", *lines] if lines else []


def as_text(results: Results, draw: Callable[[Rows, str], str] = text_table, mark: str = "") -> str:
    """Return a table that `draw` aligns, with lines above and below; `mark` begins a line below."""
    cells, above = cells_of(results)
    align = "".join("<" if name in TEXT_COLUMNS else ">" for name in cells)
    table = draw([list(cells), *cells.to_numpy().tolist()], align)
    return "\n".join([*above, "", table, *_lines_below(results, mark)])


def as_latex(results: Results) -> str:
    """Return a `tabular` for booktabs; lines above and below become comments."""
    cells, above = cells_of(results)
    form = "".join("l" if name in TEXT_COLUMNS else "r" for name in cells)
    text = cells.to_latex(index=False, escape=True, column_format=form).rstrip("\n")
    text = text.replace(" ± ", r" $\pm$ ").replace("–", "--")
    return "\n".join([*(f"% {line}" for line in above), text, *_lines_below(results, "% ")])


def _facts(results: Results) -> dict[str, Any]:
    return {"score": results.score, "split": "validation", "unit": "percent"}


def _numbers(results: Results) -> pd.DataFrame:
    """Return the table with all digits of its numbers, and None for missing ones."""
    table = results.table.drop(columns=NOT_SHOWN).astype(object)
    return table.where(table.notna(), None)


def as_csv(results: Results) -> str:
    """Return all numbers, without remarks."""
    table = _numbers(results)
    for column, value in reversed(_facts(results).items()):
        table.insert(0, column, value)
    rows = [
        [" ".join(map(str, cell)) if isinstance(cell, list) else cell for cell in row]
        for row in table.to_numpy().tolist()
    ]
    return csv_text([list(table), *rows]).rstrip("\n")


def as_json(results: Results) -> str:
    rows = _numbers(results).to_dict("records")
    for row in rows:
        for epoch in ("best", "last"):
            row[epoch] = {name: row.pop(f"{epoch}_{name}") for name in ("mean", "std", "values")}
    published = [
        p.model_dump(exclude={"score", "value"}) | {p.score: p.value} for p in results.missing
    ]
    record = {**_facts(results), "rows": rows, "published": published}
    return json.dumps(record | {"remarks": results.remarks}, indent=1)


FORMATS: dict[str, Callable[[Results], str]] = {
    "text": as_text,
    "markdown": partial(as_text, draw=markdown_table, mark="- "),
    "csv": as_csv,
    "latex": as_latex,
    "json": as_json,
}
