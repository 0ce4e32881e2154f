"""A run as one HTML page that needs nothing else."""

import shlex
from html import escape
from statistics import median

import matplotlib
import torch

from inference.evaluation import score_title
from tools import html
from tools.report import charts
from tools.report.predictions import Judgement, judge, pictures
from tools.report.pseudo_labels import is_teacher_reliable, last_pictures
from tools.results.runs import Run, best_epoch
from util.colours import palette
from util.config.loading import dump_config
from util.errors import UserError, one_line
from util.plotting import STYLE

GENERATOR = "tools.report"
SHOWN = 4


def page(run: Run, device: torch.device, limit: int | None = None) -> str:
    """The whole page; `limit`: of how many validation images, at most.

    Where the checkpoint or the data are not there, the page says so in place of the predictions.
    """
    data = run.config.data
    title = f"{run.method} on {data.name}/{run.partition}, seed {run.config.seed}"
    with matplotlib.rc_context(STYLE):
        body = [*_state(run), _summary(run), *_curves(run), *is_teacher_reliable(run)]
        body += [*last_pictures(run), *_predictions(run, device, limit)]
    return html.page(title, [*body, *_cost(run), *_origin(run)], GENERATOR)


def _state(run: Run) -> list[str]:
    if run.is_finished:
        return []
    return [f'<p class="warning">Unfinished: {run.progress}.</p>']


def _summary(run: Run) -> str:
    """Last and best scores of each network, and what was trained."""
    rows, score = [], escape(score_title(run.config))
    for network in run.networks:
        if curve := run.selected(network):
            best, last = best_epoch(curve), max(curve)
            rows.append((escape(network), f"{curve[best]:.2f}", str(best), f"{curve[last]:.2f}"))
    images = ", ".join(f"{name} {found.images}" for name, found in run.images.items())
    what = [
        ("network", escape(run.network)),
        ("images", escape(images)),
        ("epochs, steps", f"{run.config.epochs}, {run.epochs[-1].steps if run.epochs else 0}"),
    ]
    scores = html.table(("network", f"best {score}", "epoch", f"last {score}"), rows, {1, 2, 3})
    return f'<div class="figures">{scores}{html.table((), what, set())}</div>'


def _curves(run: Run) -> list[str]:
    if not run.epochs:
        return ["<h2>Curves</h2>", "<p>No epoch has ended yet.</p>"]
    parts = ["<h2>Curves</h2>"]
    if network := best_network(run):
        parts.append(html.drawing(charts.scores(run)))
        parts.append(html.drawing(charts.class_scores(run, network)))
    return [*parts, html.drawing(charts.losses(run))]


def best_network(run: Run) -> str | None:
    """The one with the highest score, which the page looks at more closely."""
    curves = {network: run.selected(network) for network in run.networks}
    best = {network: max(curve.values()) for network, curve in curves.items() if curve}
    return max(best, key=lambda network: best[network], default=None)


def _predictions(run: Run, device: torch.device, limit: int | None) -> list[str]:
    """The confusion matrix, and the images that came out best and worst."""
    head, network = "<h2>Predictions of the best checkpoint</h2>", best_network(run)
    if network is None:
        return [head, "<p>No network has been validated yet.</p>"]
    try:
        found = judge(run, network, device, SHOWN, limit)
    except UserError as error:
        return [head, f'<p class="warning">Not available: {escape(one_line(error))}</p>']
    said = (
        f"{found.images} validation images, {escape(network)}, {run.config.evaluation.mode}: mIoU "
        f"{found.scores.miou:.2f}, pixel accuracy {found.scores.accuracy:.2f}. Scores below are "
        "over the classes that an image, or its prediction, shows; image, truth, prediction."
    )
    matrix = html.drawing(charts.confusion(found.scores.confusion.numpy(), run.config.data.classes))
    return [head, f"<p>{said}</p>", matrix, *_extremes(run, found)]


def _extremes(run: Run, found: Judgement) -> list[str]:
    data = run.config.data
    colours = zip(data.classes, palette(data), strict=True)
    names = (f"{html.swatch(colour)}{escape(name)}" for name, colour in colours)
    parts = [f"<p>{' &ensp; '.join(names)}</p>"]
    for title, some in (("Best", found.best), ("Worst", found.worst)):
        figures = "".join(html.picture(*one) for one in pictures(run, some))
        parts.append(f"<h3>{title}</h3><div>{figures}</div>")
    return parts


def _cost(run: Run) -> list[str]:
    training = sum(epoch.seconds for epoch in run.epochs)
    validation = sum(epoch.validation_seconds for epoch in run.epochs)
    memory = [epoch.peak_memory for epoch in run.epochs if epoch.peak_memory is not None]
    steps = [epoch.step_seconds for epoch in run.epochs if epoch.step_seconds is not None]
    rows = [
        ("training", f"{training / 3600:.2f} h"),
        ("validation", f"{validation / 3600:.2f} h"),
        ("a step", f"{median(steps):.3f} s" if steps else "not recorded"),
        ("peak memory", f"{max(memory) / 2**30:.2f} GiB" if memory else "not recorded"),
        ("device", escape(run.starts[-1].device)),
    ]
    return ["<h2>Cost</h2>", html.table((), rows, {1})]


def _origin(run: Run) -> list[str]:
    """Command and versions of each start, and the config."""
    rows = [
        (str(start.first_step), escape(start.commit), escape(start.python), escape(start.torch),
         escape(start.device), f"<code>{escape(shlex.join(start.command))}</code>")
        for start in run.starts
    ]  # fmt: skip
    head = ("from step", "commit", "Python", "torch", "device", "command")
    return [
        "<h2>Command and versions</h2>",
        html.table(head, rows, {0}),
        "<h2>Config</h2>",
        f"<pre>{escape(dump_config(run.config))}</pre>",
    ]
