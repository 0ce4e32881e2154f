"""Scores of classes and a table from a confusion matrix."""

from collections.abc import Sequence

from torch import Tensor


def class_scores(confusion: Tensor) -> dict[str, Tensor]:
    """Return F1, precision and recall `[C]` in [0, 1] of a confusion matrix `[C, C]` (rows: truth).

    F1, 2 TP / (2 TP + FP + FN), is the Dice over all pixels of all images; for the Dice by volume,
    see `inference.evaluation.dice`.  Scores of a class without pixels are 0.
    """
    hit, found, true = confusion.diag(), confusion.sum(0), confusion.sum(1)
    return {
        "F1": 2 * hit / (found + true).clamp(min=1),
        "precision": hit / found.clamp(min=1),
        "recall": hit / true.clamp(min=1),
    }


def confusion_rows(confusion: Tensor, classes: Sequence[str]) -> list[list[object]]:
    """Return a confusion matrix in pixels as rows of a table, with the classes' names."""
    rows = zip(classes, confusion.tolist(), strict=True)
    return [["truth \\ prediction", *classes], *([name, *pixels] for name, pixels in rows)]
