"""Charts with matplotlib, in one style; matplotlib is imported by the first chart."""

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
from PIL import Image

from util.numbers import ceil_div

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, distinct for colour-blind readers.
LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_GREY = "#555555"
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
    "svg.hashsalt": "0",  # the same drawing has the same ids
    "text.parse_math": False,  # a class may be called $
}
MAX_READABLE_CLASSES = 25
"""With more rows than this, cells of a matrix are too small for numbers, and a log is too long."""
DPI = 100

P = ParamSpec("P")


def chart(draw: "Callable[P, Figure]") -> "Callable[P, Figure]":
    """Decorate a function that draws a figure: use the common style."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> "Figure":
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return styled


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure; sizes in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: "Figure", file: Any, form: str, **options: Any) -> None:
    """Write a figure as `form` (png or svg) to a path or a binary file."""
    import matplotlib

    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # shown as a box
        figure.savefig(file, format=form, **options)


def as_svg(figure: "Figure") -> bytes:
    """Render a figure for a page."""
    out = io.BytesIO()
    save(figure, out, "svg", metadata={"Date": None})
    return out.getvalue()


def as_image(figure: "Figure") -> Image.Image:
    """Render a figure as RGB pixels."""
    out = io.BytesIO()
    save(figure, out, "png", dpi=DPI)
    return Image.open(out, formats=["PNG"]).convert("RGB")


def viridis(shares: np.ndarray) -> np.ndarray:
    """Map shares in [0, 1] to colours, uint8 `[..., 3]`."""
    import matplotlib

    return matplotlib.colormaps["viridis"](shares, bytes=True)[..., :3]


def whole_numbers(axis: Any) -> None:
    """Label the x axis with whole numbers only, such as epochs."""
    axis.xaxis.get_major_locator().set_params(integer=True)


@chart
def line_chart(
    lines: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    title: str,
    ylabel: str = "",
    stars: Mapping[str, tuple[int, float]] | None = None,
    size: tuple[float, float] = (5, 3),
    ylim: tuple[float, float] | None = None,
) -> "Figure":
    """Draw lines over epochs by their names in the legend; `stars` mark a point of some."""
    figure = new_figure(*size)
    axis: Any = figure.add_subplot()
    for (name, (x, y)), colour in zip(lines.items(), LINE_COLOURS, strict=False):
        axis.plot(x, y, color=colour, marker="o", label=name)
        if stars and name in stars:
            axis.plot(*stars[name], "*", color=colour, markersize=10)
    axis.set(title=title, xlabel="epoch", ylabel=ylabel, ylim=ylim)
    whole_numbers(axis)
    if len(lines) > 1 or ylabel:
        axis.legend()
    return figure


@chart
def histogram(shares: Mapping[str, Sequence[float]], title: str) -> "Figure":
    """Draw shares of the pixels (%) in equal steps of the range of values, a line for each name."""
    figure = new_figure(2.8, 2.1)
    axis: Any = figure.add_subplot()
    for (name, values), colour in zip(shares.items(), LINE_COLOURS, strict=False):
        edges = np.linspace(0, 100, len(values) + 1)
        axis.stairs(values, edges, color=colour, label=name, linewidth=1.4)
    axis.set(title=title, xlabel="value (% of the range)", ylabel="pixels (%)", xlim=(0, 100))
    axis.legend()
    return figure


@chart
def heat_map(
    values: np.ndarray,
    columns: Sequence[Any],
    rows: Sequence[str],
    title: str,
    labels: tuple[str, str],
    is_square: bool = False,
) -> "Figure":
    """Draw percentages `[rows, columns]` as shades by their square root, with numbers in cells that
    are large enough.

    Args:
        labels: of the columns and of the rows.
        is_square: cells are squares, as in a confusion matrix, and column names stand upright.
    """
    from matplotlib.colors import PowerNorm

    has_numbers = len(rows) <= MAX_READABLE_CLASSES and len(columns) <= MAX_READABLE_CLASSES
    cell = 0.36 if has_numbers else 0.18
    margin = 0.09 * max(map(len, rows)) + 0.6
    width = margin + (cell if is_square else min(cell, 8 / len(columns))) * len(columns)
    height = (margin if is_square else 0.8) + (cell if is_square else 0.22) * len(rows)
    figure = new_figure(max(width, 3.4), height)
    axis: Any = figure.add_subplot()
    aspect: Any = "equal" if is_square else "auto"
    shades = PowerNorm(0.5, vmin=0, vmax=100)
    axis.imshow(values, cmap="Blues", norm=shades, aspect=aspect, interpolation="nearest")
    axis.grid(False)
    every = 1 if is_square else ceil_div(len(columns), 20)
    names = list(columns)[::every]
    axis.set_xticks(range(0, len(columns), every), names, rotation=90 if is_square else 0)
    axis.set_yticks(range(len(rows)), rows)
    axis.set(title=title, xlabel=labels[0], ylabel=labels[1])
    for (y, x), value in np.ndenumerate(values if has_numbers else np.empty((0, 0))):
        if value >= 0.5 or not is_square:
            colour = "white" if value > 36 else "#222222"
            axis.text(x, y, f"{value:.0f}", ha="center", va="center", fontsize=6.5, color=colour)
    return figure


def draw_confusion_matrix(confusion: np.ndarray, classes: Sequence[str]) -> "Figure":
    """Draw a confusion matrix `[C, C]` in pixels (rows: ground truth) as shares of its rows."""
    shares = 100 * confusion / confusion.sum(1, keepdims=True).clip(min=1)
    title = "share of each class's pixels (%)"
    return heat_map(shares, classes, classes, title, ("prediction", "ground truth"), is_square=True)


@chart
def reliability_diagram(quality: Mapping[str, Any], epoch: int) -> "Figure":
    """Draw the accuracy of pseudo-labels by confidence (Guo et al., ICML 2017, figure 1); below,
    the share of pixels of each confidence. `quality`: from `PseudoLabelScores.summary` in
    `metrics.calibration`."""
    bins = len(quality["bin_accuracy"])
    threshold = 100 * quality["threshold"]
    centres = [100 * (index + 0.5) / bins for index in range(bins)]
    figure = new_figure(3.4, 3.8)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    for axis, key in ((upper, "bin_accuracy"), (lower, "bin_pixels")):
        heights = [np.nan if value is None else value for value in quality[key]]
        axis.bar(centres, heights, width=92 / bins, color=LINE_COLOURS[0])
        label = f"threshold {threshold / 100:.3f}"
        axis.axvline(threshold, color=LINE_COLOURS[1], linewidth=1, label=label)
    upper.plot([0, 100], [0, 100], "--", color=LINE_GREY, linewidth=1, label="perfect calibration")
    upper.legend(loc="upper left")
    ece = "none" if quality["ece"] is None else f"{quality['ece']:.1f} %"
    title = f"pseudo-labels, epoch {epoch}: calibration error {ece}"
    upper.set(title=title, ylabel="right (%)", xlim=(0, 100), ylim=(0, 100))
    lower.set(xlabel="confidence (%)", ylabel="pixels (%)")
    return figure
