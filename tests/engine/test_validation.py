"""Warnings after a validation."""

import pytest

from engine.validation import _warn_of_selection, collapse_warning
from util.config.loading import load_config

CLASSES = ["soil", "plant", "weed"]


def record(weed, kept=1.0, **more):
    return {"iou": [90.0, 50.0, weed], "pseudo_labels": {"class_kept": [9.0, None, kept]}, **more}


def test_a_class_that_collapses_is_reported_once():
    """Weed has IoU 0 from the second validation on; plant never gets a pseudo-label."""
    iou, warnings = [3.0, 0.0, 0.0, 0.0, 0.0], []
    for number in range(1, 6):
        warnings.append(collapse_warning(CLASSES, [5, 5, 5], [record(x) for x in iou[:number]]))
    assert [bool(text) for text in warnings] == [False, False, True, True, False]
    assert "plant" in warnings[2] and "weed" in warnings[3] and "plant" not in warnings[3]


def test_a_class_that_no_mask_holds_is_not_judged():
    assert collapse_warning(CLASSES, [5, 0, 0], [record(0.0)] * 3) == ""


def test_validations_without_pseudo_labels():
    records = [{"iou": [1.0, 1.0, 0.0]}] * 3
    assert "weed" in collapse_warning(CLASSES, [5, 5, 5], records)


@pytest.mark.parametrize("select, is_warned", [("iou:b", True), ("iou:a", False), ("miou", False)])
def test_selection_by_an_absent_class_is_a_warning(select, is_warned, toy, caplog):
    config = load_config(toy.config)
    evaluation = config.evaluation.model_copy(update={"select": select})
    data = config.data.model_copy(update={"classes": ["a", "b"]})
    _warn_of_selection(config.model_copy(update={"evaluation": evaluation, "data": data}), [5, 0])
    assert ("no validation pixel has class 'b'" in caplog.text) == is_warned
