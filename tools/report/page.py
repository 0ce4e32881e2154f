"""Collect the facts of a run for its page."""

import shlex
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from PIL import Image

from dataset.image_files import open_image
from engine.method import LEGEND
from engine.run_dir import pictures_folder
from inference.evaluation import describe_prediction
from inference.scores import Scores, score_title
from metrics.confusion import class_scores
from tools import html
from tools.report import charts
from tools.report.embedding import embedding
from tools.report.predictions import best_and_worst, compared_pictures, predict_validation
from tools.results.runs import Run, best_epoch
from util.colours import palette
from util.config.data import Data
from util.config.loading import dump_config
from util.errors import UserError, counted, duration, one_line
from util.plotting import as_svg, draw_confusion_matrix, reliability_diagram

EXTREMES_SHOWN = 4
"""Best and worst images shown."""
CAPTIONS = {"val": "validation image", "unlabeled": "unlabelled image"}
"""Captions of pictures, by the first part of their file names."""


def page(
    run: Run, device: torch.device, limit: int | None = None, with_embedding: bool = False
) -> str:
    """Return a run's page; `limit`: predict the first validation images only.

    Where the checkpoint or the data are missing, the page says so instead of the predictions.
    """
    curves = {network: run.selected(network) for network in run.networks}
    best = {network: max(curve.values()) for network, curve in curves.items() if curve}
    network = max(best, key=lambda name: best[name], default=None)
    scalars = {name: as_svg(figure) for name, figure in charts.scalars(run).items()}
    figures = [charts.score_curves(run), charts.class_curves(run, network)] if network else []
    return html.render(
        "report/report.html.j2",
        generator="tools.report",
        title=f"{run.method} on {run.dataset}/{run.partition}, seed {run.config.seed}",
        unfinished="" if run.is_finished else run.progress,
        forced=run.forced,
        score=score_title(run.config),
        networks=[
            (name, f"{best[name]:.2f}", str(best_epoch(curve)), f"{curve[max(curve)]:.2f}")
            for name, curve in curves.items()
            if curve
        ],
        facts=_facts(run),
        curves=map(as_svg, figures),
        scalars=scalars,
        meanings={name: LEGEND.get(name, name) for name in scalars},
        trust=_pseudo_labels(run),
        pictures=_pictures(run),
        predictions=network and _unless_missing(lambda: _predictions(run, network, device, limit)),
        embedding=with_embedding
        and network
        and _unless_missing(lambda: as_svg(embedding(run, network, device, limit))),
        cost=_cost(run),
        starts=[
            (s.first_step, s.commit, s.python, s.torch, s.device, shlex.join(s.command))
            for s in run.starts
        ],
        config=dump_config(run.config),
    )


def _unless_missing(make: Callable[[], Any]) -> Any:
    """Return a part of the page, or the text of the `UserError` that prevents it."""
    try:
        return make()
    except UserError as error:
        return one_line(error)


def _facts(run: Run) -> list[tuple[str, str]]:
    images = ", ".join(f"{name} {identity.images}" for name, identity in run.identities.items())
    return [
        ("network", run.network),
        ("images", images),
        ("epochs, steps", f"{run.config.epochs}, {run.steps_done}"),
    ]


def _pseudo_labels(run: Run) -> dict[str, Any] | None:
    """Return the quality of the pseudo-labels; None where validation did not measure it."""
    network = next((name for name in run.networks if run.pseudo_labels(name)), None)
    if network is None:
        return None
    quality = run.pseudo_labels(network)
    epoch = max(quality)
    last = quality[epoch]
    figures = charts.pseudo_label_curves(quality), reliability_diagram(last.model_dump(), epoch)
    shares = ([*map(_percent, column)] for column in (last.class_kept, last.class_precision))
    return {
        "network": network,
        "epoch": epoch,
        "threshold": f"{last.threshold:.3f}",
        **{key: _percent(getattr(last, key)) for key in ("kept", "precision", "ece")},
        "charts": map(as_svg, figures),
        "classes": list(zip(_class_cells(run.config.data), *shares, strict=True)),
    }


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f} %"


def _class_cells(data: Data) -> list[dict[str, Any]]:
    pairs = zip(data.classes, palette(data), strict=True)
    return [{"text": name, "colour": colour} for name, colour in pairs]


def _pictures(run: Run) -> dict[str, Any] | None:
    """Return the pictures of the last validation that saved some, or the error of one that cannot
    be read."""
    epochs = [e.epoch for e in run.epochs if pictures_folder(run.path, e.epoch).is_dir()]
    if not epochs:
        return None
    images: list[tuple[Image.Image | str, str]] = []
    for kind, words in CAPTIONS.items():
        files = sorted(pictures_folder(run.path, epochs[-1]).glob(f"{kind}_*.png"))
        for number, file in enumerate(files, start=1):
            try:
                with open_image(file) as image:
                    images.append((image.convert("RGB"), f"{words} {number}"))
            except OSError as error:
                images.append((f"{file.name}: {error}", ""))
    return {"epoch": epochs[-1], "images": images}


def _predictions(run: Run, network: str, device: torch.device, limit: int | None) -> dict[str, Any]:
    predictions = predict_validation(run, network, device, limit)
    scores, classes = predictions.scores, run.config.data.classes
    mode = describe_prediction(predictions.predictor.config.evaluation)
    best, worst = best_and_worst(predictions, EXTREMES_SHOWN)
    interval = ""
    if scores.intervals:
        units = counted(scores.intervals.units, "image" if scores.dice is None else "volume")
        interval = f" (95 % interval {scores.intervals}, {units})"
    present = f", {scores.miou_present:.2f} of the classes present" if scores.absent.any() else ""
    return {
        "text": f"{counted(len(predictions.samples), 'validation image')}, {network}, "
        f"{mode}: mIoU {scores.miou:.2f}{interval}{present}, "
        f"pixel accuracy {scores.accuracy:.2f}.",
        **_class_scores(run.config.data, scores),
        "matrix": as_svg(draw_confusion_matrix(scores.confusion.numpy(), classes)),
        "extremes": [
            (title, compared_pictures(predictions, images))
            for title, images in (("Best", best), ("Worst", worst))
        ],
    }


def _class_scores(data: Data, scores: Scores) -> dict[str, Any]:
    """Return rows with the IoU, F1, precision and recall of each class, and the interval of its
    IoU."""
    columns = scores.by_class | class_scores(scores.confusion)
    cells = {name: [f"{100 * s:.1f}" for s in column] for name, column in columns.items()}
    if intervals := scores.intervals:
        spans = [f"{low:.1f}–{high:.1f}" for low, high in intervals.iou]
        cells = {"IoU": cells["IoU"], "95 %": spans} | cells
    rows = list(zip(_class_cells(data), *cells.values(), strict=True))
    return {"head": ["class", *cells], "classes": rows}


def _cost(run: Run) -> list[tuple[str, str]]:
    training, memory = sum(epoch.seconds for epoch in run.epochs), run.peak_memory
    step = f"{median(run.step_seconds):.3f} s" if run.step_seconds else "not recorded"
    return [
        ("training", duration(training)),
        ("validation", duration(run.seconds - training)),
        ("one step", step),
        ("peak memory", f"{memory / 2**30:.2f} GiB" if memory else "not recorded"),
        ("device", run.starts[-1].device),
    ]
