"""Pictures at validations: predictions and pseudo-labels of a few images, always the same ones.

They leave a training unchanged: the modes and statistics of networks, and random generators.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dataset.bands import pictures
from dataset.datasets import EvaluationSet
from dataset.loaders import batch_at, split_batch
from engine.drawing import Sheet, array, points_of
from inference.predictor import Predictor
from semi.panels import Colours, Heat, Labels, Panels
from util import distributed
from util.config.data import Data
from util.plotting import as_image, reliability_diagram
from util.precision import autocast
from util.seed import seeded_apart

if TYPE_CHECKING:
    from engine.trainer import Trainer


def save_pictures(trainer: "Trainer", scores: dict[str, Any]) -> None:
    """Save the pictures of a validation, and reliability diagrams of its pseudo-labels.

    `scores`: records of the networks, as in metrics.jsonl.
    """
    pictures, epoch = take_pictures(trainer), trainer.epoch + 1
    for record in scores.values():
        if "pseudo_labels" in record:
            figure = reliability_diagram(record["pseudo_labels"], epoch)
            pictures["reliability"] = as_image(figure)
    trainer.run_dir.pictures(pictures, epoch, trainer.steps_done)


def take_pictures(trainer: "Trainer") -> dict[str, Image.Image]:
    """Return pictures of `log.pictures` validation images and as many unlabelled ones, by name."""
    kinds = {"val": of_validation(trainer)}
    if trainer.method.unlabeled:
        kinds["unlabeled"] = of_unlabeled(trainer)
    count = trainer.config.log.pictures
    with undisturbed(trainer):
        return {
            f"{kind}_{number:02}": sheet
            for kind, sheets in kinds.items()
            for number, sheet in enumerate(itertools.islice(sheets, count), start=1)
        }


@contextmanager
def undisturbed(trainer: "Trainer") -> Iterator[None]:
    """Run the context in eval mode, without gradients, compilation and other processes, and with
    random generators of its own; restore everything afterwards."""
    modes = [(module, module.training) for module in trainer.method.modules()]
    trainer.method.eval()
    try:
        with (
            seeded_apart(trainer.config.seed, trainer.device),
            torch.no_grad(),
            torch.compiler.set_stance("force_eager"),
            distributed.alone(),
        ):
            yield
    finally:
        for module, training in modes:
            module.training = training


def of_validation(trainer: "Trainer") -> Iterator[Image.Image]:
    """Draw image, truth and predictions of all networks, for images spread over the split."""
    assert isinstance(trainer.val.dataset, EvaluationSet)
    images, data = trainer.val.dataset.images, trainer.config.data
    count = min(trainer.config.log.pictures, len(images))
    for index in (i * len(images) // count for i in range(count)):
        pixels, truth = images[index]
        sheet = Sheet(data)
        add_photo(sheet, "image", pixels, data)
        sheet.labels("truth", np.array(truth))
        for name, network in trainer.method.eval_models().items():
            predicted = Predictor(network, trainer.config, trainer.device).mask(pixels)
            sheet.labels(f"prediction, {name}", predicted)
        yield sheet.image(f"validation image {images.name(index)}, epoch {trainer.epoch + 1}:")


def of_unlabeled(trainer: "Trainer") -> Iterator[Image.Image]:
    """Draw the method's panels of the run's first batches, in micro-batches as in training."""
    raws = (batch_at(trainer.train, step) for step in itertools.count())
    parts = (part for raw in raws for part in split_batch(raw, trainer.config.micro_batch))
    for part in parts:
        batch = trainer.views(part)
        with autocast(trainer.device, trainer.config.precision):
            panels = trainer.method.pictures(batch)
        threshold = float(trainer.method.threshold)
        title = f"unlabelled image, epoch {trainer.epoch + 1}, threshold {threshold:.3f}:"
        for number in range(len(batch["unlabeled"]["weak"])):
            yield draw(panels, number, trainer.config.data, trainer.mean, trainer.std).image(title)


def draw(panels: Panels, number: int, data: Data, mean: Tensor, std: Tensor) -> Sheet:
    """Draw the panels of image `number` of a batch."""
    sheet = Sheet(data)
    for caption, panel in panels.items():
        marks = None if isinstance(panel, Labels | Colours) else panel.marks
        points = None if marks is None else points_of(marks, number)
        if isinstance(panel, Labels):
            shown = None if panel.shown is None else array(panel.shown[number])
            sheet.labels(caption, array(panel.label[number]).astype(np.uint8), shown)
        elif isinstance(panel, Heat):
            sheet.heat(caption, array(panel.share[number]), points)
        elif isinstance(panel, Colours):
            colours = (255 * array(panel.rgb[number].permute(1, 2, 0))).round().astype(np.uint8)
            sheet.photo(caption, Image.fromarray(colours))
        else:
            pixels = array((panel.image[number] * std + mean).clamp(0, 1).permute(1, 2, 0))
            box = None if panel.box is None else array(panel.box[number])
            add_photo(sheet, caption, pixels, data, box, points)
    return sheet


def add_photo(
    sheet: Sheet,
    caption: str,
    pixels: np.ndarray,
    data: Data,
    box: np.ndarray | None = None,
    points: np.ndarray | None = None,
) -> None:
    """Add an image `[H, W, C]` to a sheet, or both images of a pair."""
    words = ("",) if data.dates == 1 else (", earlier", ", later")
    for date, picture in zip(words, pictures(pixels, data), strict=True):
        sheet.photo(caption + date, picture, box, points)
