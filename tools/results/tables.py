"""Rows of results as text, Markdown, LaTeX, CSV and JSON."""

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tools.results.collect import Results
from tools.results.groups import Row, Spread
from util.errors import printable
from util.io import csv_text


class Column(NamedTuple):
    title: str
    cell: Callable[[Row], str]
    is_number: bool = False
    is_score: bool = False
    """Scores and costs stand in the table even where all rows have the same."""


def columns_of(results: Results) -> list[Column]:
    """The columns in which any row says something."""
    rows, score = results.rows, results.score
    score = "mIoU" if score == "miou" else score
    columns = [
        Column("method", lambda row: row.method, is_score=True),
        Column("of", lambda row: row.scored),
        Column("network", lambda row: row.network),
        Column("dataset", lambda row: row.dataset),
        Column("partition", lambda row: row.partition),
        Column("labels", lambda row: _optional(row.labels, "d"), True),
        Column("seeds", lambda row: str(len(row.seeds)), True),
        Column(f"best {score}", lambda row: _spread(row.best), True, True),
        Column("in epoch", lambda row: _range(row.best_epochs), True, True),
        Column(f"last {score}", lambda row: _spread(row.last), True, True),
        Column("published", lambda row: _optional(row.published, ".1f"), True, True),
        Column("epochs", lambda row: str(row.epochs), True),
        Column("steps", lambda row: str(row.steps), True),
        Column("s/step", lambda row: _optional(row.step_seconds, ".3g"), True, True),
        Column("GiB", lambda row: _optional(row.gibibytes, ".2f"), True, True),
        Column("commit", lambda row: row.commit),
        Column("settings", lambda row: row.settings),
    ]
    if all(row.partition == _optional(row.labels, "d") for row in rows):
        columns = [column for column in columns if column.title != "partition"]
    return [column for column in columns if any(column.cell(row) for row in rows)]


class Sheet(NamedTuple):
    """A table's columns and cells, and what stands around it."""

    above: list[str]
    """What all rows share."""
    columns: list[Column]
    head: list[str]
    rows: list[list[str]]
    below: list[str]
    """Lone published scores, and remarks."""


def sheet_of(results: Results) -> Sheet:
    columns, shared = [], []
    for column in columns_of(results):
        cells = {printable(column.cell(row)) for row in results.rows}
        if len(cells) == 1 < len(results.rows) and not column.is_score:
            shared.append(f"{column.title}: {cells.pop()}")
        else:
            columns.append(column)
    lone = [
        f"published, no run beside it: {p.name} {p.entry.method} {p.entry.title} {p.value:.1f} "
        f"({p.entry.source})"
        for p in results.missing
    ]
    rows = [[printable(column.cell(row)) for column in columns] for row in results.rows]
    titles = [printable(column.title) for column in columns]
    above = ["; ".join(shared)] if shared else []
    return Sheet(above, columns, titles, rows, [*map(printable, [*lone, *results.remarks])])


def _optional(value: Any, form: str) -> str:
    return "" if value is None else format(value, form)


def _spread(found: Spread) -> str:
    return f"{found.mean:.1f}" + ("" if found.std is None else f" ± {found.std:.1f}")


def _range(epochs: Sequence[int]) -> str:
    low, high = min(epochs), max(epochs)
    return str(low) if low == high else f"{low}–{high}"


def as_text(results: Results) -> str:
    sheet = sheet_of(results)
    widths = [max(map(len, cells)) for cells in zip(sheet.head, *sheet.rows, strict=True)]
    lines = [
        "  ".join(
            f"{cell:>{width}}" if column.is_number else f"{cell:<{width}}"
            for cell, width, column in zip(row, widths, sheet.columns, strict=True)
        ).rstrip()
        for row in [sheet.head, *sheet.rows]
    ]
    above = [*sheet.above, ""] if sheet.above else []
    return "\n".join([*above, *lines, *_below(sheet, "")])


def as_markdown(results: Results) -> str:
    sheet = sheet_of(results)
    rule = "|".join("--:" if column.is_number else "---" for column in sheet.columns)
    lines = [[cell.replace("|", r"\|") for cell in row] for row in [sheet.head, *sheet.rows]]
    head, *rows = [f"| {' | '.join(line)} |" for line in lines]
    above = [*sheet.above, ""] if sheet.above else []
    return "\n".join([*above, head, f"|{rule}|", *rows, *_below(sheet, "- ")])


def as_latex(results: Results) -> str:
    """A `tabular` for booktabs; what stands around it becomes comments."""
    sheet = sheet_of(results)
    form = "".join("r" if column.is_number else "l" for column in sheet.columns)
    head, *rows = [" & ".join(map(_tex, row)) + r" \\" for row in [sheet.head, *sheet.rows]]
    begin = [rf"\begin{{tabular}}{{{form}}}", r"\toprule", head, r"\midrule"]
    end = [r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*(f"% {a}" for a in sheet.above), *begin, *rows, *end, *_below(sheet, "% ")])


TEX = str.maketrans(
    {character: f"\\{character}" for character in "_%&#${}"}
    | {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
)
"""Text in LaTeX, without commands."""


def _tex(cell: str) -> str:
    return cell.translate(TEX).replace(" ± ", r" $\pm$ ").replace("–", "--")


def _below(sheet: Sheet, prefix: str) -> list[str]:
    return ["", *(f"{prefix}{line}" for line in sheet.below)] if sheet.below else []


def as_csv(results: Results) -> str:
    """Numbers with all their digits; remarks are not in it."""
    rows = [_record(row) for row in results.rows]
    for row in rows:
        for name in ("best", "last"):
            row |= {f"{name}_{key}": value for key, value in row.pop(name).items()}
        for name, value in row.items():
            row[name] = " ".join(map(str, value)) if isinstance(value, list) else value
    return csv_text([list(rows[0]), *(list(row.values()) for row in rows)]).rstrip("\n")


def as_json(results: Results) -> str:
    record = {
        "score": results.score,
        "rows": [_record(row) for row in results.rows],
        "published": [
            {
                **p.entry.model_dump(exclude={"score", "values"}),
                "partition": p.partition,
                p.entry.score: p.value,
            }
            for p in results.missing
        ],
        "remarks": results.remarks,
    }
    return json.dumps(record, indent=1)


def _record(row: Row) -> dict[str, Any]:
    spreads = {
        name: {"mean": found.mean, "std": found.std, "values": found.values}
        for name, found in (("best", row.best), ("last", row.last))
    }
    return {k: v for k, v in row._asdict().items() if k != "curves"} | spreads


FORMATS = {
    "text": as_text,
    "markdown": as_markdown,
    "csv": as_csv,
    "latex": as_latex,
    "json": as_json,
}
