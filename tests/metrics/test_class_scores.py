"""Scores of classes, boundary IoU and the worst images equal literal definitions."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import binary_erosion
from sklearn.metrics import jaccard_score, precision_recall_fscore_support

import evaluate
from inference.evaluation_files import comparison, image_miou, worst_images
from inference.scores import Scores, score_table
from metrics.boundary import BoundaryIoU
from metrics.confusion import class_counts, class_scores, confusion_matrix, confusion_rows
from util.colours import palette
from util.config.loading import load_config
from util.plotting import as_image, draw_confusion_matrix

CPU = torch.device("cpu")


def blobs(seed, size=(40, 50), classes=3, ignore=True):
    """Return a prediction with shifted outlines and a mask of patches with ignored pixels."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, (size[0] // 10, size[1] // 10)).repeat(10, 0).repeat(10, 1)
    predicted = np.roll(target, rng.integers(-4, 5, 2), (0, 1))
    predicted[rng.random(size) < 0.02] = 0
    if ignore:
        target[rng.random(size) < 0.03] = 255
        target[5:9, 3:30] = 255
    return predicted.astype(np.uint8), target.astype(np.uint8)


def test_f1_precision_and_recall():
    predicted, target = (mask.ravel() for mask in blobs(0, ignore=False))
    confusion = torch.zeros(4, 4, dtype=torch.int64)  # the last class is absent
    np.add.at(confusion.numpy(), (target, predicted), 1)
    found = class_scores(confusion)
    expected = precision_recall_fscore_support(target, predicted, labels=range(4), zero_division=0)
    for name, values in zip(("precision", "recall", "F1"), expected, strict=False):
        np.testing.assert_allclose(found[name], values)
    text = score_table(Scores(confusion), ["a", "b", "c", "d"], found).splitlines()
    assert text[0].split() == ["IoU", "F1", "precision", "recall"]
    assert text[2].split()[:3] == [
        "b", f"{100 * Scores(confusion).iou[1]:.2f}", f"{100 * found['F1'][1]:.2f}"
    ]  # fmt: skip
    assert text[4].endswith("(absent)")


def literal_boundary(pairs, classes, share):
    """Compute boundary IoU class by class, eroding one pixel at a time as the authors do."""
    both, either = np.zeros(classes), np.zeros(classes)
    for predicted, target in pairs:
        d = max(1, round(share * math.hypot(*target.shape)))
        ignored = target == 255
        for c in range(classes):
            bands = []
            for mask in (target == c, predicted == c):
                whole = mask | ignored  # an ignored pixel makes no contour
                inner = binary_erosion(whole, np.ones((3, 3)), iterations=d, border_value=0)
                bands.append(mask & ~inner & ~ignored)
            both[c] += (bands[0] & bands[1]).sum()
            either[c] += (bands[0] | bands[1]).sum()
    return both / np.maximum(either, 1)


@pytest.mark.parametrize("share", [0.001, 0.02, 0.07, 0.9])
@pytest.mark.parametrize("ignore", [False, True])
def test_boundary_iou_is_its_literal_definition(share, ignore):
    pairs = [blobs(seed, (40 + 10 * seed, 50), ignore=ignore) for seed in range(3)]
    boundary = BoundaryIoU(4, share, CPU)
    for index, (predicted, target) in enumerate(pairs):
        boundary.add(index, torch.from_numpy(predicted).long(), torch.from_numpy(target))
    expected = literal_boundary(pairs, 4, share)
    np.testing.assert_allclose(boundary.iou(), expected, atol=1e-6)
    assert 0 < expected[0] < 1 and expected[3] == 0


def test_a_column_names_a_distance_that_is_not_the_published_one():
    titles = [BoundaryIoU(2, share, torch.device("cpu")).title for share in (0.02, 0.01)]
    assert titles == ["boundary IoU", "boundary IoU (0.01)"]


def test_boundary_iou_of_a_single_pixel():
    target = torch.zeros(1, 1, dtype=torch.uint8)
    boundary = BoundaryIoU(2, 0.02, CPU)
    boundary.add(0, target.long(), target)
    assert boundary.iou().tolist() == [1, 0]


def test_a_prediction_without_a_class_is_not_counted():
    predicted, target = torch.tensor([[0, 1, 255, 255], [1, 1, 0, 255]], dtype=torch.uint8)
    assert confusion_matrix(predicted, target, 2).tolist() == [[0, 0], [1, 1]]


def test_the_worst_images_in_order():
    pairs = [blobs(seed) for seed in range(5)]
    pairs[3] = (pairs[3][0], np.full_like(pairs[3][1], 255))  # nothing to score
    confusions = [confusion_matrix(*map(torch.from_numpy, pair), 3) for pair in pairs]
    scores = Scores(sum(confusions), counts=torch.stack([*map(class_counts, confusions)]))
    expected = []
    for index, (predicted, target) in enumerate(pairs):
        known = target != 255
        if known.any():  # scikit-learn skips classes in neither, too
            miou = jaccard_score(target[known], predicted[known], average="macro")
            expected.append((miou, index))
    expected.sort()
    for count in (1, 3, 9):
        found = worst_images(scores, count)
        assert [index for index, _ in found] == [index for _, index in expected[:count]]
        assert [miou for _, miou in found] == pytest.approx([m for m, _ in expected[:count]])
    assert image_miou(scores.counts[3]) == math.inf


# Errors for all warnings of drawing, but not for files left open by other tests.
@pytest.mark.filterwarnings(
    "error", "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("count", [2, 25, 26, 60])
def test_picture_of_a_confusion_matrix(count):
    confusion = np.eye(count, dtype=int) * 7
    confusion[0, 1] = 21
    confusion[1, 1] = 0  # a class that is absent
    names = ["$x_$", "道路", *(f"class {i}" for i in range(2, count))]
    axis = (figure := draw_confusion_matrix(confusion, names)).axes[0]
    shares = axis.images[0].get_array()
    assert shares[0, 1] == 75 and shares[1].max() == 0 and shares.sum() == 100 * (count - 1)
    written = [text.get_text() for text in axis.texts]
    assert written == (["25", "75", *["100"] * (count - 2)] if count <= 25 else [])
    assert [label.get_text() for label in axis.get_xticklabels()] == names
    assert as_image(figure).width > 10 * count
    assert confusion_rows(torch.tensor([[1, 2], [3, 4]]), ["a", "b"])[1:] == [
        ["a", 1, 2], ["b", 3, 4]
    ]  # fmt: skip


def test_what_evaluate_writes(trained, run, user_error, tmp_path):
    common = ["--checkpoint", trained]
    out, numbers = tmp_path / "out", tmp_path / "scores.json"
    text = run(evaluate, *common, "--save-path", out, "--worst", 2, "--boundary-iou",
               "--json", numbers).output()  # fmt: skip
    assert "boundary IoU" in text
    scores = json.loads(numbers.read_text())
    assert set(scores["class_scores"]) == {"F1", "precision", "recall", "boundary IoU"}
    with (out / "scores.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    with (out / "confusion.csv").open(newline="") as file:
        confusion = np.array([row[1:] for row in csv.reader(file)][1:], int)
    for index, line in enumerate(lines):
        assert line["class"] == scores["classes"][index]
        assert float(line["IoU"]) == pytest.approx(scores["iou"][index], abs=1e-4)
        for name, values in scores["class_scores"].items():
            assert float(line[name]) == pytest.approx(values[index], abs=1e-4)
        assert int(line["pixels"]) == confusion[index].sum()
    assert confusion.sum() == sum(50 * (37 + i) for i in range(3))  # a row of each is ignored
    assert Image.open(out / "confusion.png").format == "PNG"
    worst = sorted((out / "worst").iterdir())
    assert [path.name[:5] for path in worst] == ["001_v", "002_v"]
    assert Image.open(worst[0]).width >= 3 * 50
    cropped = ["--set", "evaluation.mode=center_crop", "--worst", 3, "--save-path"]
    run(evaluate, *common, *cropped, tmp_path / "crop", "--json", numbers).output()
    assert json.loads(numbers.read_text())["mode"] == "center_crop"
    assert len(list((tmp_path / "crop/worst").iterdir())) == 3
    for more, part in (
        (["--save-path", out], "exists already"),
        (["--worst", 3], "add --save-path"),
        (["--worst", -1, "--save-path", tmp_path / "new"], "found -1"),
        (["--boundary-iou", 2], "found 2.0"),
        (["--json", tmp_path / "no/scores.json"], "no/scores.json: its folder does not exist"),
        (["--json", out / "scores.csv"], "scores.csv: exists and is not a report of this command"),
    ):
        assert part in user_error(evaluate, *common, *more)


def test_a_comparison_names_what_only_one_of_both_holds(toy):
    image, data = Image.new("RGB", (60, 40)), load_config(toy.config).data
    target, predicted = np.zeros((40, 60), np.uint8), np.ones((40, 60), np.uint8)
    found = comparison([image], target, predicted, data, "a.jpg")
    assert found.width >= 3 * 60 and found.height > 40
    colours = {tuple(c) for c in np.array(found)[60:].reshape(-1, 3).tolist()}
    assert set(palette(data)[:2]) <= colours and palette(data)[2] not in colours
