"""Pictures at validations: predictions and pseudo-labels of a few images, always the same ones.

They leave a training unchanged: the modes and statistics of networks, and random generators.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dataset.bands import rgb_previews
from dataset.datasets import EvaluationSet
from dataset.loaders import split_batch
from inference.overlay import class_shares, colour_mask, side_by_side, with_legend
from inference.predictor import Predictor
from model.network import eval_mode
from semi.panels import Colours, Heat, Labels, Marks, Panels
from util import distributed
from util.colours import Colour
from util.config.data import Data
from util.numbers import evenly_spaced
from util.plotting import as_image, reliability_diagram, viridis
from util.precision import autocast
from util.seed import seeded_apart

if TYPE_CHECKING:
    from engine.trainer import Trainer

PICTURE_SIDE = 256
"""Longer side of every picture in pixels."""
PICTURES_PER_ROW = 4
FONT_SIZE = 13  # pixels
LEFT_OUT_COLOUR: Colour = (200, 200, 200)
"""Colour of labels that are not used, such as pseudo-labels below the threshold."""
MARK_COLOUR: Colour = (255, 45, 85)


def save_pictures(trainer: "Trainer", scores: dict[str, Any]) -> None:
    """Save the pictures of a validation, and reliability diagrams of its pseudo-labels.

    `scores`: records of the networks, as in metrics.jsonl.
    """
    pictures = take_pictures(trainer)
    epoch = trainer.epoch + 1
    for record in scores.values():
        if "pseudo_labels" in record:
            figure = reliability_diagram(record["pseudo_labels"], epoch)
            pictures["reliability"] = as_image(figure)
    trainer.run_dir.save_pictures(pictures, epoch, trainer.steps_done)


def take_pictures(trainer: "Trainer") -> dict[str, Image.Image]:
    """Return pictures of `log.pictures` validation images and as many unlabelled ones, by name."""
    sheets_by_split = {"val": validation_sheets(trainer)}
    if trainer.method.unlabeled:
        sheets_by_split["unlabeled"] = unlabeled_sheets(trainer)
    count = trainer.config.log.pictures
    with without_side_effects(trainer):
        return {
            f"{split}_{number:02}": sheet
            for split, sheets in sheets_by_split.items()
            for number, sheet in enumerate(itertools.islice(sheets, count), start=1)
        }


@contextmanager
def without_side_effects(trainer: "Trainer") -> Iterator[None]:
    """Run the context in eval mode, without gradients, compilation and other processes, and with
    random generators of its own; restore everything afterwards."""
    with (
        eval_mode(trainer.method),
        seeded_apart(trainer.config.seed, trainer.device),
        torch.no_grad(),
        torch.compiler.set_stance("force_eager"),
        distributed.single_process(),
    ):
        yield


def validation_sheets(trainer: "Trainer") -> Iterator[Image.Image]:
    """Draw image, ground truth and all predictions, for images spread over the split."""
    assert isinstance(trainer.val_loader.dataset, EvaluationSet)
    images = trainer.val_loader.dataset.images
    for index in evenly_spaced(range(len(images)), trainer.config.log.pictures):
        pixels, truth = images[index]
        sheet = Sheet(trainer.config.data)
        sheet.add_sample("image", pixels)
        sheet.add_labels("ground truth", np.array(truth))
        for name, network in trainer.method.eval_models().items():
            predicted = Predictor(network, trainer.config, trainer.device).mask(pixels)
            sheet.add_labels(f"prediction, {name}", predicted)
        yield sheet.image(f"validation image {images.name(index)}, epoch {trainer.epoch + 1}:")


def unlabeled_sheets(trainer: "Trainer") -> Iterator[Image.Image]:
    """Draw the method's panels of the run's first batches, in micro-batches as in training."""
    raws = (trainer.train_loader.batch_at(step) for step in itertools.count())
    parts = (part for raw in raws for part in split_batch(raw, trainer.config.micro_batch))
    for part in parts:
        batch = trainer.views(part)
        with autocast(trainer.device, trainer.config.precision):
            panels = trainer.method.panels(batch)
        threshold = float(trainer.method.threshold)
        title = f"unlabelled image, epoch {trainer.epoch + 1}, threshold {threshold:.3f}:"
        for number in range(len(batch["unlabeled"]["weak"])):
            sheet = draw_panels(panels, number, trainer.config.data, trainer.mean, trainer.std)
            yield sheet.image(title)


class Sheet:
    """Pictures of one image in rows, above a legend of their classes."""

    def __init__(self, data: Data):
        self._data = data
        self._cells: list[Image.Image] = []
        self._legend: dict[str, Colour] = {}

    def add_sample(
        self,
        caption: str,
        pixels: np.ndarray,
        box: np.ndarray | None = None,
        points: np.ndarray | None = None,
    ) -> None:
        """Add an image `[H, W, C]`, or both images of a pair, see `photo`."""
        dates = ("",) if self._data.dates == 1 else (", earlier", ", later")
        for date, picture in zip(dates, rgb_previews(pixels, self._data), strict=True):
            self.add_photo(caption + date, picture, box, points)

    def add_photo(
        self,
        caption: str,
        image: Image.Image,
        box: np.ndarray | None = None,
        points: np.ndarray | None = None,
    ) -> None:
        """Add an image with a rectangle (bool `[H, W]`) and points (see `points_of`)."""
        picture = _fitted(image.convert("RGB"), Image.Resampling.LANCZOS)
        bounds = None if box is None else Image.fromarray(box).getbbox()
        if bounds is not None:
            scale = picture.width / image.width
            x0, y0, x1, y1 = (round(scale * bound) for bound in bounds)
            ImageDraw.Draw(picture).rectangle(
                (x0, y0, x1 - 1, y1 - 1), outline=MARK_COLOUR, width=2
            )
        self._add(caption, _marked(picture, points))

    def add_labels(self, caption: str, mask: np.ndarray, shown: np.ndarray | None = None) -> None:
        """Add a mask `[H, W]` of classes; grey where not `shown`."""
        coloured = colour_mask(mask, self._data).convert("RGB")
        kept = np.ones(mask.shape, bool) if shown is None else shown
        picture = Image.composite(
            coloured, Image.new("RGB", coloured.size, LEFT_OUT_COLOUR), Image.fromarray(kept)
        )
        self._legend |= {name: colour for colour, name, _ in class_shares(mask[kept], self._data)}
        if not kept.all():
            self._legend["left out"] = LEFT_OUT_COLOUR
        self._add(caption, _fitted(picture, Image.Resampling.NEAREST))

    def add_heat(self, caption: str, share: np.ndarray, points: np.ndarray | None = None) -> None:
        """Add a heat map of values in [0, 1], float `[h, w]`, with its scale, and points."""
        values = Image.fromarray(np.nan_to_num(share).astype(np.float32))
        smooth = np.asarray(_fitted(values, Image.Resampling.BILINEAR)).clip(0, 1)
        self._add(caption, _marked(Image.fromarray(viridis(smooth)), points), has_scale=True)

    def _add(self, caption: str, picture: Image.Image, has_scale: bool = False) -> None:
        strip = FONT_SIZE + 6
        cell = Image.new("RGB", (PICTURE_SIDE, picture.height + strip), "white")
        cell.paste(picture, (0, strip))
        draw, font = ImageDraw.Draw(cell), ImageFont.load_default(FONT_SIZE)
        draw.text((1, 1), caption, "black", font)
        if has_scale:
            ramp = viridis(np.linspace(0, 1, 50))[None].repeat(FONT_SIZE - 3, axis=0)
            cell.paste(Image.fromarray(ramp), (PICTURE_SIDE - 64, 4))
            draw.text((PICTURE_SIDE - 67, 1), "0", "black", font, anchor="ra")
            draw.text((PICTURE_SIDE - 1, 1), "1", "black", font, anchor="ra")
        self._cells.append(cell)

    def image(self, title: str) -> Image.Image:
        """Return the sheet; the title precedes the legend."""
        columns = min(PICTURES_PER_ROW, len(self._cells))
        missing = -len(self._cells) % columns
        cells = [*self._cells, *[Image.new("RGB", (1, 1), "white")] * missing]
        rows = [cells[first : first + columns] for first in range(0, len(cells), columns)]
        legend = [(colour, name) for name, colour in self._legend.items()]
        return with_legend(side_by_side(rows), [(None, title), *legend])


def draw_panels(panels: Panels, number: int, data: Data, mean: Tensor, std: Tensor) -> Sheet:
    """Draw the panels of image `number` of a batch."""
    sheet = Sheet(data)
    for caption, panel in panels.items():
        marks = None if isinstance(panel, Labels | Colours) else panel.marks
        points = None if marks is None else points_of(marks, number)
        if isinstance(panel, Labels):
            shown = None if panel.shown is None else to_numpy(panel.shown[number])
            sheet.add_labels(caption, to_numpy(panel.label[number]).astype(np.uint8), shown)
        elif isinstance(panel, Heat):
            sheet.add_heat(caption, to_numpy(panel.share[number]), points)
        elif isinstance(panel, Colours):
            colours = 255 * to_numpy(panel.rgb[number].permute(1, 2, 0))
            sheet.add_photo(caption, Image.fromarray(colours.round().astype(np.uint8)))
        else:
            pixels = to_numpy((panel.image[number] * std + mean).clamp(0, 1).permute(1, 2, 0))
            box = None if panel.box is None else to_numpy(panel.box[number])
            sheet.add_sample(caption, pixels, box, points)
    return sheet


def points_of(marks: Marks, number: int) -> np.ndarray:
    """Return the pixels marked in image `number` as shares of width and height, float `[M, 2]`."""
    h, w = marks.shape
    pixels = marks.pixels[number].cpu()
    x = pixels % w / max(w - 1, 1)
    y = pixels // w / max(h - 1, 1)
    return torch.stack([x, y], dim=1).numpy()


def to_numpy(values: Tensor) -> np.ndarray:
    """Return a tensor of any device and precision as an array."""
    return (values.float() if values.is_floating_point() else values).cpu().numpy()


def _fitted(image: Image.Image, resampling: Image.Resampling) -> Image.Image:
    scale = PICTURE_SIDE / max(image.size)
    width, height = (max(1, round(scale * side)) for side in image.size)
    return image.resize((width, height), resampling)


def _marked(picture: Image.Image, points: np.ndarray | None) -> Image.Image:
    if points is None:
        return picture
    draw = ImageDraw.Draw(picture)
    radius = 3
    last = np.array(picture.size) - 1
    for x, y in (points * last).clip(radius, last - radius).tolist():  # not cut off
        around = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(around, fill=MARK_COLOUR, outline="white", width=1)
    return picture
