"""Validation of a run: scores, quality of pseudo-labels, warnings."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import nn

from inference.evaluation import evaluate, with_bar
from inference.scores import Scores, score_record, score_table
from metrics.calibration import PseudoLabelScores, pseudo_label_scalars, pseudo_label_sentence
from util.config.schema import Config
from util.errors import join_first
from util.log import logger, wrap_words

COLLAPSE_PATIENCE = 3
"""Validations with IoU 0, or without pseudo-labels, after which a class is reported."""

if TYPE_CHECKING:
    from engine.trainer import Trainer


def warn_of_center_crops(config: Config) -> None:
    """Warn where `center_crop_epochs` leaves no choice of the best epoch."""
    options, epochs = config.evaluation, config.epochs
    if options.mode != "center_crop" and 1 < epochs <= options.center_crop_epochs + 1:
        logger.warning(
            "evaluation.center_crop_epochs: found %d for %d epochs; only the last one can be the "
            "best. Fix: set it to fewer epochs, such as %d",
            options.center_crop_epochs, epochs, max(epochs - 20, 0),
        )  # fmt: skip


def score_network(trainer: "Trainer", name: str, network: nn.Module) -> dict[str, Any]:
    """Score a network of the method, log its scores, and note a best one in `trainer.best`.

    Returns the record of metrics.jsonl.
    """
    config, epoch = trainer.config, trainer.epoch + 1
    is_center_crop = epoch <= config.evaluation.center_crop_epochs and epoch < config.epochs
    mode = "center_crop" if is_center_crop else config.evaluation.mode
    measures_pseudo_labels = config.log.pseudo_labels and trainer.method.unlabeled
    labels = None
    if measures_pseudo_labels and network is trainer.method.labeler:
        labels = PseudoLabelScores(config.num_classes, trainer.method.threshold, trainer.device)
    scores = evaluate_network(trainer, network, mode, labels)

    # A score under center_crop is never compared with one under the config's mode.
    score = scores.selected(config)
    best = trainer.best
    if mode == config.evaluation.mode and score > best.get(name, {}).get("score", -1.0):
        best[name] = {"score": score, "epoch": epoch}
    best_so_far = f", best {best[name]['score']:.2f}" if name in best else ""
    logger.info(
        "epoch %d/%d %s (%s): %s %.2f%s\n%s",
        epoch, config.epochs, name, mode, trainer.score_title, score, best_so_far,
        score_table(scores, config.data.classes, is_short=True),
    )  # fmt: skip
    record = {"mode": mode, **score_record(scores)}
    values = tracker_values(name, record, config.data.classes)
    if labels is not None:
        record["pseudo_labels"] = quality = labels.summary()
        line = f"pseudo-labels by {name}: {pseudo_label_sentence(quality, config.data.classes)}"
        logger.info("%s", wrap_words(*re.split(" (?!%)", line)))
        values |= pseudo_label_scalars(quality, f"{name}_pseudo_labels", config.data.classes)
    before = [e["scores"][name] for e in trainer.history if name in e.get("scores", {})]
    pixels = scores.confusion.sum(1).tolist()
    if not before and name == next(iter(trainer.method.eval_models())):
        _warn_of_selection(config, pixels)
    if text := collapse_warning(config.data.classes, pixels, [*before, record]):
        logger.warning("%s: %s", name, text)
    scalars = {f"val/{key}": value for key, value in values.items()}
    trainer.run_dir.log_scalars(scalars, epoch * trainer.steps_per_epoch)
    return record


def _warn_of_selection(config: Config, pixels: list[int]) -> None:
    """Warn if no validation pixel has the class whose IoU selects the best checkpoint."""
    kind, _, selected = config.evaluation.select.partition(":")
    if kind == "iou" and not pixels[config.data.classes.index(selected)]:
        logger.warning(
            "evaluation.select: no validation pixel has class %r, so best.pth is an arbitrary "
            "epoch. Fix: set it to miou, or add such images to the validation split", selected,
        )  # fmt: skip


def evaluate_network(
    trainer: "Trainer",
    network: nn.Module,
    mode: str,
    pseudo_labels: PseudoLabelScores | None = None,
    batches: Iterable[dict[str, Any]] | None = None,
) -> Scores:
    """Score a network on the validation images, or on `batches` of one image each."""
    if batches is None:
        batches = with_bar(trainer.val_loader, "validation")
    return evaluate(
        network, batches, trainer.config, mode=mode, device=trainer.device,
        volumes=trainer.volumes, pseudo_labels=pseudo_labels,
    )  # fmt: skip


def collapse_warning(classes: list[str], pixels: list[int], records: list[dict[str, Any]]) -> str:
    """Return a warning when classes have had IoU 0, or no pseudo-labels, for exactly
    `COLLAPSE_PATIENCE` validations, so that it is given once; else an empty text.

    Args:
        pixels: pixels of each class in the validation masks; absent classes are not reported.
        records: all validations of a network so far.
    """

    def has_collapsed(key: str, index: int) -> bool:
        measured = [r.get("pseudo_labels") if key == "class_kept" else r for r in records]
        is_zero = [scores is not None and not scores[key][index] for scores in measured]
        return all(is_zero[-COLLAPSE_PATIENCE:]) and not any(
            is_zero[-COLLAPSE_PATIENCE - 1 : -COLLAPSE_PATIENCE]
        )

    if len(records) < COLLAPSE_PATIENCE:
        return ""
    parts = []
    for key, title in (("iou", "IoU 0"), ("class_kept", "no pseudo-labels")):
        present = [index for index, number in enumerate(pixels) if number]
        if names := [classes[index] for index in present if has_collapsed(key, index)]:
            parts.append(f"{title} for {COLLAPSE_PATIENCE} validations: {join_first(names, 5)}")
    advice = "What to try: docs/troubleshooting.md#the-iou-of-a-class-stays-0"
    return f"{'; '.join(parts)}. {advice}" if parts else ""


def tracker_values(name: str, record: dict[str, Any], classes: list[str]) -> dict[str, float]:
    """Return a network's scores in percent, by their names in the trackers."""
    values = {f"{name}/mIoU": record["miou"], f"{name}/accuracy": record["accuracy"]}
    per_class = zip(classes, record["iou"], strict=True)
    values |= {f"{name}_iou/{label}": iou for label, iou in per_class}
    if "mean_dice" in record:
        values[f"{name}/Dice"] = record["mean_dice"]
    return values
