"""Draw learning curves, label-efficiency curves, scores of classes and the quality of pseudo-labels
for a paper."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tools.results.records import PseudoLabels
from tools.results.tables import span
from util.errors import UserError
from util.numbers import ceil_div
from util.plotting import LINE_COLOURS, LINE_GREY, chart, new_figure, save, whole_numbers

PANEL = ["panel", "partition"]
"""Columns whose values are alike in a panel."""
MARKS = "osD^vPX"
"""Line markers, for readers in black and white."""
WIDTH, HEIGHT = 3.4, 2.5
"""Size of a panel, in inches."""
LEGEND_LINE = 0.2
"""Height of a line of the legend, in inches."""
LEGEND_HANDLE, LEGEND_CHARACTER = 0.6, 0.065
"""Width of the line and of a character of an entry of the legend, in inches."""
PANELS_PER_ROW = 3
"""Most panels in a row."""
QUALITIES = ("above the threshold", "of these, right")
MOST_CLASSES = 6
"""With more classes, the quality of pseudo-labels is drawn as the mean over classes."""
CLASS_HEIGHT = 0.24
"""Height of a class in the figure of class scores, in inches."""


def write_figures(table: pd.DataFrame, folder: Path, score: str, at: str) -> None:
    """Write learning curves and the scores of classes; where a method ran with several numbers of
    labels, label-efficiency curves; where validations measured pseudo-labels, their quality.

    Raises `UserError` for a folder that cannot be written.
    """
    table = table.assign(
        panel=[f"{row.dataset}, {row.network}" for row in table.itertuples()],
        class_names=table.classes.map(tuple),
        partition=[_partition(row) for row in table.itertuples()],
        name=[_legend_name(row) for row in table.itertuples()],
    )
    title = "mIoU (%)" if score == "miou" else f"{score} (%)"
    figures = {"learning": learning_curves(table, title)}
    panels = [panel for _, panel in table.groupby("panel", sort=False)]
    if several := [panel for panel in panels if _partial(panel).labels.nunique() > 1]:
        figures["labels"] = label_curves(pd.concat(several), f"{title}, {at} epoch", at)
    for (panel, partition, _), rows in table.groupby([*PANEL, "class_names"], sort=False):
        heading = f"{panel}, {partition}"
        name = re.sub(r"[^\w.]+", "_", heading).strip("_")
        if f"classes_{name}" in figures:  # runs with other classes have the same heading
            name += f"_{sum(figure.startswith(f'classes_{name}') for figure in figures) + 1}"
        measure = "Dice" if score == "dice" else "IoU"
        figures[f"classes_{name}"] = class_scores(rows, heading, measure)
        labelling = rows[rows.pseudo_labels.map(any)]
        if len(labelling):
            figures[f"pseudo_labels_{name}"] = pseudo_label_curves(labelling, heading)
    _save_all(figures, folder)


def _save_all(figures: dict[str, Figure], folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            for form in ("png", "svg"):
                save(figure, folder / f"{name}.{form}", form, dpi=200, bbox_inches="tight")
    except OSError as error:
        raise UserError(f"--plot {folder}: cannot be written ({error})") from None


@chart
def learning_curves(table: pd.DataFrame, title: str) -> Figure:
    """Draw the score over epochs, a panel for each dataset, network and partition."""
    panels = table.groupby(PANEL, sort=False)
    figure, axes = _new_panels(panels.ngroups)
    styles = _line_styles(table)
    for axis, ((panel, partition), rows) in zip(axes, panels, strict=True):
        for row in rows.itertuples():
            scores = pd.DataFrame(row.curves).dropna(axis=1)  # epochs of all seeds
            _plot_epochs(axis, scores, styles[row.name])
        axis.set(title=f"{panel}, {partition}", xlabel="epoch", ylabel=title)
        whole_numbers(axis)
    _legend(figure, styles, table.name, marker="")
    return figure


@chart
def label_curves(table: pd.DataFrame, title: str, at: str) -> Figure:
    """Draw the score over the number of labels, a line for each method (marks alone where several
    partitions have one number); full supervision is a horizontal line."""
    panels = table.groupby("panel", sort=False)
    figure, axes = _new_panels(panels.ngroups)
    styles = _line_styles(table)
    drawn: list[str] = []
    for axis, (panel, rows) in zip(axes, panels, strict=True):
        partial = _partial(rows).sort_values("labels", kind="stable")
        for name, line in partial.groupby("name", sort=False):
            style = styles[name]
            if line.labels.duplicated().any():  # partitions of equal size: marks alone
                axis.plot(line.labels, line[f"{at}_mean"], **style | {"linestyle": ""})
            else:
                _plot(axis, line.labels, line[f"{at}_mean"], line[f"{at}_std"], style)
        for row in rows[_is_full(rows)].itertuples():
            height, text = getattr(row, f"{at}_mean"), f"full supervision, {row.labels} labels"
            axis.axhline(height, color=LINE_GREY, linestyle=(0, (4, 3)), linewidth=1)
            axis.annotate(text, (0.02, height), (0, -2), ("axes fraction", "data"),
                          "offset points", fontsize=7, color=LINE_GREY, va="top")  # fmt: skip
        ticks = partial.labels.unique().tolist()
        axis.set_xscale("log")
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.minorticks_off()
        axis.set(title=panel, xlabel="labelled images", ylabel=title)
        drawn += rows.name[rows.name.isin(partial.name)].tolist()
    _legend(figure, styles, drawn)
    return figure


@chart
def class_scores(table: pd.DataFrame, title: str, score: str) -> Figure:
    """Draw the score of each class in the best epoch of each run, with the standard deviation over
    seeds; a teacher's marks are hollow."""
    classes = table.classes.iloc[0]
    figure = new_figure(WIDTH * 1.6, 0.6 + CLASS_HEIGHT * len(classes))
    axis: Any = figure.add_subplot()
    styles = {
        name: style
        | {"fillstyle": "none" if style["linestyle"] == "--" else "full", "linestyle": ""}
        for name, style in _line_styles(table).items()
    }
    for place, row in enumerate(table.itertuples(), start=1):
        scores = pd.DataFrame(row.class_scores)  # a row for each seed
        heights = [index + 0.7 * (place / (len(table) + 1) - 0.5) for index in range(len(classes))]
        deviation = scores.std().fillna(0)
        axis.errorbar(scores.mean(), heights, xerr=deviation, elinewidth=0.8, **styles[row.name])
    axis.set(title=title, xlabel=f"{score} (%), best epoch", ylim=(len(classes) - 0.4, -0.6))
    axis.set_yticks(range(len(classes)), classes)
    _legend(figure, styles, table.name)
    return figure


@chart
def pseudo_label_curves(table: pd.DataFrame, title: str) -> Figure:
    """Draw, over epochs, the share of pixels above the confidence threshold and the share of their
    pseudo-labels that is right; a row of panels for each class, or for the mean over many."""
    classes = table.classes.iloc[0]
    parts = {name: [index] for index, name in enumerate(classes)}
    if len(classes) > MOST_CLASSES:
        parts = {"mean over classes": list(range(len(classes)))}
    figure = new_figure(WIDTH * 2, HEIGHT * 0.8 * len(parts))
    sheet = figure.subplots(len(parts), 2, squeeze=False, sharex=True)
    styles = _line_styles(table)
    for axes, (part, indices) in zip(sheet, parts.items(), strict=True):
        for axis, kind, meaning in zip(axes, ("kept", "precision"), QUALITIES, strict=True):
            measured: set[int] = set()
            for row in table.itertuples():
                shares = [_shares(run, kind, indices) for run in row.pseudo_labels if run]
                means = pd.DataFrame([share.mean(axis=1) for share in shares])
                _plot_epochs(axis, means, styles[row.name])
                measured.update(*(share.count(axis=1) for share in shares))
            name = part
            if kind == "precision" and 1 < len(indices) != min(measured):
                name = f"mean over {span(measured)} of {len(indices)} classes"
            axis.set(title=f"{name}: {meaning}", ylim=(-3, 103), ylabel="%")
            whole_numbers(axis)
    for axis in sheet[-1]:
        axis.set_xlabel("epoch")
    figure.suptitle(title)
    _legend(figure, styles, table.name, marker="")
    return figure


def _shares(quality: Mapping[int, PseudoLabels], kind: str, indices: Sequence[int]) -> pd.DataFrame:
    """Return a share in percent by epoch (rows) and class (columns).

    The mean over several classes must not rise where classes vanish: one that is never predicted
    keeps 0 %, and has no precision.
    """
    by_class = {epoch: getattr(labels, f"class_{kind}") for epoch, labels in quality.items()}
    shares = pd.DataFrame(by_class, dtype=float).T[[*indices]]
    if kind == "kept" and len(indices) > 1:
        return shares.dropna(how="all").fillna(0)
    return shares


def _legend(figure: Figure, styles: dict[str, Any], names: Iterable[str], **more: Any) -> None:
    """Draw one legend for all panels, below them."""
    names = list(dict.fromkeys(names))
    entry = LEGEND_HANDLE + LEGEND_CHARACTER * max(map(len, names))
    columns = max(1, min(len(names), int(figure.get_figwidth() / entry)))
    figure.set_figheight(figure.get_figheight() + LEGEND_LINE * ceil_div(len(names), columns))
    lines = [Line2D([], [], **styles[name] | more) for name in names]
    figure.legend(lines, names, ncols=columns, loc="outside lower center", handlelength=2.6)


def _plot(axis: Any, x: Any, mean: Any, std: Any, style: dict[str, Any], **more: Any) -> None:
    """Draw a line, with a band of one standard deviation where it is known."""
    x, mean, std = (pd.Series(values).astype(float).to_numpy() for values in (x, mean, std))
    axis.plot(x, mean, **style | more)
    axis.fill_between(x, mean - std, mean + std, color=style["color"], alpha=0.15, linewidth=0)


def _plot_epochs(axis: Any, curves: pd.DataFrame, style: dict[str, Any]) -> None:
    """Draw the mean over runs (rows) by epoch (columns); a marker if there is a single epoch."""
    curves = curves.sort_index(axis=1)
    mean = curves.mean()
    more = {"marker": ""} if mean.count() > 1 else {}
    _plot(axis, curves.columns, mean, curves.std(), style, **more)


def _is_full(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Return True for rows without unlabelled images that have as many labels as the others have
    images."""
    most = (rows.labels + rows.unlabeled)[rows.labels.gt(0) & rows.unlabeled.gt(0)].max()
    return rows.unlabeled.fillna(0).eq(0) & rows.labels.ge(most).fillna(False)


def _partial(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with a known number of labels, without full supervision."""
    return rows[~_is_full(rows) & rows.labels.gt(0).fillna(False)]


def _partition(row: Any) -> str:
    labels = "" if pd.isna(row.labels) else f"{row.labels} labels"
    if str(row.labels) == row.partition:
        return labels
    return f"{row.partition} ({labels})" if labels else row.partition


def _legend_name(row: Any) -> str:
    return f"{row.method} {row.settings}".rstrip() + (f", {row.scored}" if row.scored else "")


def _line_styles(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return colour, marker and dashes by name, the same in all panels; a teacher has its
    student's colour, in dashes."""
    styles: dict[str, dict[str, Any]] = {}
    for number, (_, rows) in enumerate(table.groupby(["method", "settings"], sort=False)):
        again = number // len(LINE_COLOURS)
        for row in rows.itertuples():
            styles[row.name] = {
                "color": LINE_COLOURS[number % len(LINE_COLOURS)],
                "marker": MARKS[(number + again) % len(MARKS)],
                "linestyle": "--" if row.scored == "teacher" else ("-", "-.", ":")[again % 3],
            }
    return styles


def _new_panels(count: int) -> tuple[Figure, Sequence[Any]]:
    columns = min(count, PANELS_PER_ROW)
    rows = ceil_div(count, columns)
    figure = new_figure(WIDTH * columns, HEIGHT * rows)
    axes = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for unused in axes[count:]:
        unused.set_axis_off()
    return figure, axes[:count]
