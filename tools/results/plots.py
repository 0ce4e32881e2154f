"""Learning curves and label-efficiency curves, drawn for a paper's column (needs matplotlib)."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

from tools.results.groups import Row
from util.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers tell apart; marks for readers in black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = "osD^vPX"
STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.8,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "svg.fonttype": "none",  # text stays text
}
WIDTH, HEIGHT, LEGEND = 3.4, 2.5, 0.2  # inches: of a panel, of a line of the legend
WIDEST = 3  # panels in a row


class Line(NamedTuple):
    """Mean and standard deviation (None for one seed) over x."""

    x: list[int]
    mean: list[float]
    std: list[float | None]


def draw(rows: Sequence[Row], folder: Path, score: str, at: str) -> list[Path]:
    """Write learning and, where a method ran with several numbers of labels, label-efficiency
    curves; returns the files.

    Raises `UserError` without matplotlib, and for a folder that cannot be written.
    """
    require_matplotlib("--plot")
    import matplotlib

    files = []
    with matplotlib.rc_context(STYLE):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, figure in _figures(rows, score, at).items():
                for suffix in ("png", "svg"):
                    files.append(folder / f"{name}.{suffix}")
                    figure.savefig(files[-1], dpi=200, bbox_inches="tight")
        except OSError as error:
            raise UserError(f"--plot {folder}: cannot be written ({error})") from None
    return files


def _figures(rows: Sequence[Row], score: str, at: str) -> dict[str, "Figure"]:
    title = "mIoU (%)" if score == "miou" else f"{score} (%)"
    figures = {"learning": learning_curves(rows, title)}
    if by_labels := {k: v for k, v in _panels(rows, _dataset).items() if _is_over_labels(v)}:
        figures["labels"] = label_curves(by_labels, f"{title}, {at} epoch", at)
    return figures


def require_matplotlib(what: str) -> None:
    """Raise `UserError` where it is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserError(
            f"{what}: needs matplotlib; pip install -r requirements-extra.txt"
        ) from None


def learning_curves(rows: Sequence[Row], title: str) -> "Figure":
    """Score over epochs, a panel for each dataset, network and partition."""
    panels = _panels(rows, lambda row: f"{_dataset(row)}, {_partition(row)}")
    figure, axes = _sheet(len(panels))
    looks = _looks(rows)
    for axis, (name, some) in zip(axes, panels.items(), strict=True):
        for row in some:
            _plot(axis, _over_epochs(row.curves), looks[_name(row)] | {"marker": ""})
        axis.set(title=name, xlabel="epoch", ylabel=title)
        axis.xaxis.get_major_locator().set_params(integer=True)
    _legend(figure, looks, [_name(row) for row in rows], marks=False)
    return figure


def label_curves(panels: dict[str, list[Row]], title: str, at: str) -> "Figure":
    """Score over number of labels, a line for each method; full supervision is a level."""
    figure, axes = _sheet(len(panels))
    looks = _looks(row for rows in panels.values() for row in rows)
    drawn: list[str] = []
    for axis, (name, rows) in zip(axes, panels.items(), strict=True):
        full = [row for row in rows if _is_full(row, rows)]
        lines = _panels((row for row in rows if row not in full and row.labels), _name)
        for label, some in lines.items():
            _plot(axis, _over_labels(some, at), looks[label])
        for row in full:
            _level(axis, getattr(row, at).mean, f"full supervision, {row.labels} labels")
        ticks = sorted({row.labels or 0 for some in lines.values() for row in some})
        axis.set_xscale("log")
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.minorticks_off()
        axis.set(title=name, xlabel="labelled images", ylabel=title)
        drawn += lines
    _legend(figure, looks, drawn, marks=True)
    return figure


def _level(axis: Any, height: float, text: str) -> None:
    axis.axhline(height, color="#555555", linestyle=(0, (4, 3)), linewidth=1)
    axis.annotate(text, (0.02, height), (0, -2), ("axes fraction", "data"), "offset points",
                  fontsize=7, color="#555555", va="top")  # fmt: skip


def _legend(figure: "Figure", looks: dict[str, Any], names: Sequence[str], marks: bool) -> None:
    """One for all panels, below them."""
    from matplotlib.lines import Line2D

    names = list(dict.fromkeys(names))
    dressed = [looks[name] | ({} if marks else {"marker": ""}) for name in names]
    panels = len([axis for axis in figure.axes if axis.axison])
    columns = min(len(names), 3 * min(panels, WIDEST))
    figure.set_figheight(figure.get_figheight() + LEGEND * -(-len(names) // columns))
    figure.legend([Line2D([], [], **look) for look in dressed], names, ncols=columns,
                  loc="outside lower center", handlelength=2.6)  # fmt: skip


def _plot(axis: Any, line: Line, look: dict[str, Any]) -> None:
    axis.plot(line.x, line.mean, **look)
    band = [(x, m - s, m + s) for x, m, s in zip(*line, strict=True) if s is not None]
    if band:
        x, low, high = zip(*band, strict=True)
        axis.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0)


def _over_epochs(curves: Sequence[dict[int, float]]) -> Line:
    """Over the epochs that all seeds have validated."""
    epochs = sorted(set(curves[0]).intersection(*curves[1:]))
    values = [[curve[epoch] for curve in curves] for epoch in epochs]
    spreads = [stdev(v) if len(v) > 1 else None for v in values]
    return Line(epochs, [mean(v) for v in values], spreads)


def _over_labels(rows: list[Row], at: str) -> Line:
    rows = sorted(rows, key=lambda row: row.labels or 0)
    spreads = [getattr(row, at) for row in rows]
    return Line([row.labels or 0 for row in rows], [s.mean for s in spreads],
                [s.std for s in spreads])  # fmt: skip


def _is_full(row: Row, rows: Sequence[Row]) -> bool:
    """Whether a row without unlabelled images has the labels of all images of the others."""
    every = [r.labels + r.unlabeled for r in rows if r.labels and r.unlabeled]
    return bool(every) and not row.unlabeled and (row.labels or 0) >= max(every)


def _is_over_labels(rows: Sequence[Row]) -> bool:
    """Whether there is anything to draw over the number of labels."""
    numbers = [row.labels for row in rows if row.labels and not _is_full(row, rows)]
    return len(set(numbers)) > 1


def _dataset(row: Row) -> str:
    return f"{row.dataset}, {row.network.split()[-1]}"


def _partition(row: Row) -> str:
    labels = "" if row.labels is None else f"{row.labels} labels"
    if str(row.labels) == row.partition:
        return labels
    return f"{row.partition} ({labels})" if labels else row.partition


def _name(row: Row) -> str:
    """A row's name in a legend."""
    parts = [row.method, *([row.settings] if row.settings else [])]
    return " ".join(parts) + (f", {row.scored}" if row.scored else "")


def _panels(rows: Iterable[Row], name: Callable[[Row], str]) -> dict[str, list[Row]]:
    panels: dict[str, list[Row]] = {}
    for row in rows:
        panels.setdefault(name(row), []).append(row)
    return panels


def _looks(rows: Iterable[Row]) -> dict[str, dict[str, Any]]:
    """Colour, mark and dashes by name, the same in all panels; a teacher has its student's
    colour, in dashes."""
    looks: dict[str, dict[str, Any]] = {}
    methods: list[tuple[str, str]] = []
    for row in rows:
        method = (row.method, row.settings)
        methods += [] if method in methods else [method]
        place = methods.index(method)
        again = place // len(COLOURS)
        looks[_name(row)] = {
            "color": COLOURS[place % len(COLOURS)],
            "marker": MARKS[(place + again) % len(MARKS)],
            "linestyle": "--" if row.scored == "teacher" else ("-", "-.", ":")[again % 3],
        }
    return looks


def _sheet(count: int) -> tuple["Figure", list[Any]]:
    """A figure with so many panels, in the style of them all."""
    from matplotlib.figure import Figure

    columns = min(count, WIDEST)
    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH * columns, HEIGHT * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for unused in axes[count:]:
        unused.set_axis_off()
    return figure, axes[:count]
