"""The drawings of a run's page, as SVG (needs matplotlib)."""

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.evaluation import score_title
from tools.results.runs import PseudoLabels, Run, best_epoch
from util.plotting import COLOURS, STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WRITTEN = 12  # classes, up to which a matrix has numbers in its cells


def losses(run: Run) -> bytes:
    """Means of the losses and other scalars of each epoch, a panel for each."""
    epochs = [epoch.epoch for epoch in run.epochs]
    names = list(dict.fromkeys(name for epoch in run.epochs for name in epoch.train))
    figure = _figure(10, 2.1 * -(-len(names) // 4))
    for number, name in enumerate(names, start=1):
        axis: Any = figure.add_subplot(-(-len(names) // 4), 4, number)
        values = [epoch.train.get(name, float("nan")) for epoch in run.epochs]
        axis.plot(epochs, values, color=COLOURS[0], marker="o")
        axis.set(title=name, xlabel="epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
    return _svg(figure)


def scores(run: Run) -> bytes:
    """The score that chooses the best checkpoint after each epoch, of all networks that are
    validated; the best is marked."""
    figure = _figure(5, 3)
    axis: Any = figure.add_subplot()
    for network, colour in zip(run.networks, COLOURS, strict=False):
        curve = run.selected(network)
        if curve:
            best = best_epoch(curve)
            axis.plot(list(curve), list(curve.values()), color=colour, marker="o", label=network)
            axis.plot([best], [curve[best]], "*", color=colour, markersize=10)
    axis.set(title="validation", xlabel="epoch", ylabel=f"{score_title(run.config)} (%)")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend()
    return _svg(figure)


def class_scores(run: Run, network: str) -> bytes:
    """IoU of each class (rows) after each epoch (columns)."""
    classes = run.config.data.classes
    curves = [run.curve(network, name) for name in classes]
    epochs = list(curves[0])
    values = np.array([[curve[epoch] for epoch in epochs] for curve in curves])
    figure = _figure(min(10, 2.5 + 0.42 * len(epochs)), 1 + 0.22 * len(classes))
    axis: Any = figure.add_subplot()
    _matrix(axis, values, 100, len(epochs) <= 2 * WRITTEN and len(classes) <= 4 * WRITTEN)
    every = -(-len(epochs) // 20)
    axis.set_xticks(range(0, len(epochs), every), epochs[::every])
    axis.set_yticks(range(len(classes)), classes)
    axis.set(title=f"IoU (%), {network}", xlabel="epoch")
    return _svg(figure)


def trust(found: dict[int, PseudoLabels]) -> bytes:
    """How many pseudo-labels count, and how many of these are right, after each epoch."""
    figure = _figure(5, 3)
    axis: Any = figure.add_subplot()
    lines = {"above the threshold": "kept", "of these right": "precision"}
    for (label, key), colour in zip(lines.items(), COLOURS, strict=False):
        values = [_number(getattr(said, key)) for said in found.values()]
        axis.plot(list(found), values, color=colour, marker="o", label=label)
    axis.set(title="pseudo-labels", xlabel="epoch", ylabel="pixels (%)", ylim=(0, 103))
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend()
    return _svg(figure)


def reliability(said: PseudoLabels) -> bytes:
    """How many pixels of each confidence are right, against the diagonal, where as many are as the
    network says; below, how many pixels there are of it."""
    bins = len(said.bin_accuracy)
    centres = [100 * (place + 0.5) / bins for place in range(bins)]
    figure = _figure(3.4, 3.8)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    how: Any = {"width": 92 / bins, "color": COLOURS[0]}
    upper.bar(centres, [_number(value) for value in said.bin_accuracy], **how)
    upper.plot([0, 100], [0, 100], "--", color="#555555", linewidth=1)
    line = 100 * said.threshold
    for axis in (upper, lower):
        axis.axvline(line, color=COLOURS[1], linewidth=1)
    upper.set(title="reliability", ylabel="right (%)", xlim=(0, 100), ylim=(0, 100))
    lower.bar(centres, [_number(value) for value in said.bin_pixels], **how)
    lower.set(xlabel="confidence (%)", ylabel="pixels (%)")
    return _svg(figure)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def confusion(matrix: np.ndarray, classes: list[str]) -> bytes:
    """Where the pixels of each class (rows, in percent) went (columns)."""
    shares = 100 * matrix / matrix.sum(1, keepdims=True).clip(min=1)
    side = 1.8 + (0.42 if len(classes) <= WRITTEN else 0.2) * len(classes)
    figure = _figure(side, side)
    axis: Any = figure.add_subplot()
    _matrix(axis, shares, 100, len(classes) <= WRITTEN)
    axis.set_xticks(range(len(classes)), classes, rotation=90)
    axis.set_yticks(range(len(classes)), classes)
    axis.set(title="share of a class's pixels (%)", xlabel="prediction", ylabel="truth")
    return _svg(figure)


def _matrix(axis: Any, values: np.ndarray, top: float, is_written: bool) -> None:
    axis.imshow(values, cmap="Blues", vmin=0, vmax=top, aspect="auto", interpolation="nearest")
    axis.grid(False)
    if is_written:
        for (y, x), value in np.ndenumerate(values):
            colour = "white" if value > 0.6 * top else "#222222"
            axis.text(x, y, f"{value:.0f}", ha="center", va="center", fontsize=6.5, color=colour)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure: "Figure") -> bytes:
    import matplotlib

    out = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(out, format="svg")
    return out.getvalue()
