"""What a run's validations saw of its pseudo-labels: the parts of its page on them."""

from html import escape

from dataset.image_files import open_image
from engine.run_dir import pictures_folder
from tools import html
from tools.report import charts
from tools.results.runs import PseudoLabels, Run
from util.colours import palette

KINDS = {"val": "validation image", "unlabeled": "unlabelled image"}
"""Beginnings of the names of pictures, and what they show."""


def is_teacher_reliable(run: Run) -> list[str]:
    """How many pseudo-labels pass, how many of them are right, and what confidence means; empty
    where validation did not count it."""
    network, found = run.pseudo_labels()
    if not found:
        return []
    epoch = max(found)
    last = found[epoch]
    said = (
        f"Labels by {escape(network)} for the labelled validation images, epoch {epoch}: "
        f"{_percent(last.kept)} of the pixels are above the threshold of {last.threshold:.3f} (the "
        f"line), {_percent(last.precision)} of them right. Expected calibration error: "
        f"{_percent(last.ece)}. Bars below the diagonal: less is right than the network believes."
    )
    drawn = html.drawing(charts.trust(found)) + html.drawing(charts.reliability(last))
    return [
        "<h2>Is the teacher reliable?</h2>",
        f"<p>{said}</p>",
        f'<div class="figures"><div>{drawn}</div>{_by_class(run, last)}</div>',
    ]


def _by_class(run: Run, last: PseudoLabels) -> str:
    data = run.config.data
    of_classes = zip(
        data.classes, palette(data), last.class_kept, last.class_precision, strict=True
    )
    rows = [
        (html.swatch(colour) + escape(name), _percent(kept), _percent(precision))
        for name, colour, kept, precision in of_classes
    ]
    return html.table(("labelled as", "above the threshold", "of these right"), rows, {1, 2})


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f} %"


def last_pictures(run: Run) -> list[str]:
    """The pictures of the last validation that left some; empty where none did."""
    epochs = [e.epoch for e in run.epochs if pictures_folder(run.path, e.epoch).is_dir()]
    if not epochs:
        return []
    parts = [f"<h2>Pictures of epoch {epochs[-1]}</h2>"]
    for kind, words in KINDS.items():
        files = sorted(pictures_folder(run.path, epochs[-1]).glob(f"{kind}_*.png"))
        for number, file in enumerate(files, start=1):
            try:
                with open_image(file) as image:
                    parts.append(html.picture(image, f"{words} {number}", is_wide=True))
            except OSError as error:
                parts.append(f'<p class="warning">{escape(f"{file.name}: {error}")}</p>')
    return parts
