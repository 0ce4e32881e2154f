"""Charts of a run's page."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from inference.overlay import side_by_side
from inference.scores import score_title
from tools.results.records import PseudoLabels
from tools.results.runs import Run, best_epoch
from util.colours import palette
from util.config.data import Data
from util.plotting import MAX_READABLE_CLASSES, as_image, chart, heat_map, line_chart, new_figure


def curves(run: Run) -> Image.Image:
    """Draw the training loss and the validation score over epochs, side by side."""
    loss = [epoch.train.get("loss", np.nan) for epoch in run.epochs]
    lines = {"loss": ([epoch.epoch for epoch in run.epochs], loss)}
    figures = [line_chart(lines, "training", "loss"), score_curves(run)]
    return side_by_side([[as_image(figure) for figure in figures]])


def scalars(run: Run) -> dict[str, Figure]:
    """Draw the mean of each loss and other scalar over epochs, by name."""
    epochs = [epoch.epoch for epoch in run.epochs]
    names = dict.fromkeys(name for epoch in run.epochs for name in epoch.train)
    return {
        name: line_chart(
            {name: (epochs, [epoch.train.get(name, np.nan) for epoch in run.epochs])},
            name,
            size=(2.5, 2.1),
        )
        for name in names
    }


def score_curves(run: Run) -> Figure:
    """Draw the score that chooses the best checkpoint, for all validated networks; stars mark the
    best epochs."""
    curves = {network: curve for network in run.networks if (curve := run.selected(network))}
    lines = {network: (list(curve), list(curve.values())) for network, curve in curves.items()}
    best = {network: best_epoch(curve) for network, curve in curves.items()}
    stars = {network: (epoch, curves[network][epoch]) for network, epoch in best.items()}
    return line_chart(lines, "validation", f"{score_title(run.config)} (%)", stars)


def class_curves(run: Run, network: str) -> Figure:
    """Draw the IoU of each class (rows) after each epoch (columns)."""
    classes = run.config.data.classes
    curves = [run.curve(network, name) for name in classes]
    epochs = list(curves[0])
    values = np.array([[curve[epoch] for epoch in epochs] for curve in curves])
    return heat_map(values, epochs, classes, f"IoU (%), {network}", ("epoch", ""))


def pseudo_label_curves(quality: dict[int, PseudoLabels]) -> Figure:
    """Draw the share of pseudo-labels above the threshold, and their precision, by epoch."""
    names = {"above the threshold": "kept", "of these right": "precision"}
    epochs, labels = list(quality), quality.values()
    lines = {
        title: (epochs, np.array([getattr(one, key) for one in labels], float).tolist())
        for title, key in names.items()
    }
    return line_chart(lines, "pseudo-labels", "pixels (%)", ylim=(0, 103))


@chart
def scatter(points: np.ndarray, classes: np.ndarray, data: Data) -> Figure:
    """Draw points `[N, 2]` in the colours of their classes."""
    figure = new_figure(7, 4.5)
    axis: Any = figure.add_subplot()
    for index, (name, colour) in enumerate(zip(data.classes, palette(data), strict=True)):
        x, y = points[classes == index].T
        shade = np.array([colour]) / 255
        axis.scatter(x, y, 28, shade, label=name, edgecolors="#444444", linewidths=0.4)
    axis.set(title="t-SNE of class means of decoder features", xticks=[], yticks=[])
    if len(data.classes) <= MAX_READABLE_CLASSES:
        axis.legend(bbox_to_anchor=(1, 1), loc="upper left")
    return figure
