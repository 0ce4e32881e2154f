"""Quality of pseudo-labels and calibration, counted during validation."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fixmatch import FixMatch
from inference.evaluation import center_crop, evaluate
from inference.predictor import Predictor
from metrics.calibration import (
    CONFIDENCE_BINS,
    PseudoLabelScores,
    pseudo_label_scalars,
    pseudo_label_sentence,
)
from supervised import SupOnly
from tests.batches import Local, batches
from util.config.loading import load_config
from util.plotting import as_image, reliability_diagram

CPU = torch.device("cpu")


def drawn(seed=0, images=3, size=(40, 50), classes=4):
    """Yield predictions, confidences and masks; confident predictions are right more often."""
    g = torch.Generator().manual_seed(seed)
    for _ in range(images):
        probabilities = (4 * torch.randn(classes, *size, generator=g)).softmax(0)
        confidence, predicted = probabilities.max(0)
        right = torch.rand(size, generator=g) < confidence**2
        target = torch.where(right, predicted, torch.randint(classes, size, generator=g))
        target[:5] = 255
        yield predicted, confidence, target.byte(), probabilities


def counted(images, threshold=0.7, classes=4):
    scores = PseudoLabelScores(classes, threshold, CPU)
    for predicted, confidence, target, _ in images:
        scores.add(predicted, confidence, target)
    return scores.summary()


def test_expected_calibration_error_is_that_of_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional.classification")
    images = list(drawn())
    probabilities = torch.stack([image[3] for image in images])
    targets = torch.stack([image[2] for image in images]).long()
    expected = functional.multiclass_calibration_error(
        probabilities, targets, num_classes=4, n_bins=CONFIDENCE_BINS, norm="l1", ignore_index=255
    )
    assert counted(images)["ece"] == pytest.approx(100 * expected.item(), abs=1e-3)


def test_shares_and_precision_literally():
    images = list(drawn())
    predicted, confidence, target = (
        torch.stack([image[i] for image in images]).numpy() for i in range(3)
    )
    known = target != 255
    predicted, confidence, right = predicted[known], confidence[known], (predicted == target)[known]
    above, found = confidence >= 0.7, counted(images)
    assert found["kept"] == pytest.approx(100 * above.mean())
    assert found["precision"] == pytest.approx(100 * right[above].mean())
    for c in range(4):
        own = predicted == c
        assert found["class_kept"][c] == pytest.approx(100 * above[own].mean())
        assert found["class_precision"][c] == pytest.approx(100 * right[own & above].mean())
    place = np.minimum((confidence * CONFIDENCE_BINS).astype(int), CONFIDENCE_BINS - 1)
    for b in range(CONFIDENCE_BINS):
        own = place == b
        assert found["bin_pixels"][b] == pytest.approx(100 * own.mean())
        if own.any():
            assert found["bin_confidence"][b] == pytest.approx(100 * confidence[own].mean(), 1e-4)
            assert found["bin_accuracy"][b] == pytest.approx(100 * right[own].mean())


def test_a_sure_network_that_is_right_is_calibrated_and_the_order_does_not_matter():
    sure = torch.ones(1, 6)
    classes = torch.arange(6)[None] % 4
    found = counted([(classes, sure, classes, None)])
    assert found["ece"] == 0 and found["kept"] == found["precision"] == 100
    images = list(drawn(images=4))
    assert counted(images) == counted(images[::-1])
    many = torch.full((1, 2), 200)
    bytes_and_longs = [
        counted([(c, sure[:, :2], many, None)], classes=201) for c in (many.byte(), many)
    ]
    assert bytes_and_longs[0] == bytes_and_longs[1]


def test_nothing_labelled_and_nothing_confident():
    nothing = (torch.zeros(2, 3).long(), torch.full((2, 3), 0.5), torch.full((2, 3), 255), None)
    found = counted([nothing])
    assert found["kept"] is found["precision"] is found["ece"] is None
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    unsure = (*nothing[:2], torch.zeros(2, 3).long(), None)
    found = counted([unsure])
    assert found["kept"] == 0 and found["precision"] is None and found["ece"] == 50
    sentence = pseudo_label_sentence(found, [*"abcd"])
    least = "of the pixels have a confidence of at least 0.700"
    assert sentence == f"0.00 % {least}, calibration error 50.00 %"
    values = pseudo_label_scalars(found, "p", ["a", "b", "c", "d"])
    assert values == {"p/threshold": 0.7, "p/kept": 0, "p/ece": 50, "p_kept/a": 0}


def test_the_mean_over_classes_names_their_number():
    """A collapse to one class leaves a precision of one class."""
    target = torch.arange(8).view(2, 4) % 4
    collapsed = counted([(torch.zeros(2, 4).long(), torch.ones(2, 4), target, None)])
    assert "at least 0.700; 25.00 % of these are right (a only), calibration" in (
        pseudo_label_sentence(collapsed, [*"abcd"])
    )
    partly = counted([(target % 2, torch.ones(2, 4), target, None)])
    expected = "50.00 % of these are right (mean over 2 of 4 classes 50.00 %, worst a 50.00 %)"
    assert expected in pseudo_label_sentence(partly, [*"abcd"])
    well = pseudo_label_sentence(counted([(target, torch.ones(2, 4), target, None)]), [*"abcd"])
    assert "(mean over classes 100.00 %, worst a 100.00 %)" in well


@pytest.mark.parametrize("mode", ["original", "sliding_window", "center_crop", "resize"])
def test_confidence_is_the_probability_of_the_predicted_class(mode, toy):
    config = load_config(
        toy.config,
        ["crop_size=9", "data.mean=[0,0,0]", "data.std=[1,1,1]",
         f"data.classes={[*'abcdef']}".replace("'", "")],
    )  # fmt: skip
    rng = np.random.default_rng(0)
    masks = [rng.integers(0, 6, (20, 33), dtype=np.uint8) for _ in range(2)]
    images = list(batches(masks, [mask % 3 for mask in masks]))
    seen = PseudoLabelScores(6, 0.3, CPU)
    rows = []
    seen.add = lambda *what: rows.append(what)
    network = Local().eval()
    evaluate(network, images, config, mode=mode, device=CPU, volumes=[0, 0], pseudo_labels=seen)
    for batch, (predicted, confidence, target) in zip(images, rows, strict=True):
        x, mask = batch["image"].float() / 255, batch["mask"]
        if mode == "center_crop":
            x, mask = center_crop(x, 9), center_crop(mask, 9)
        predictor = Predictor(network, config, CPU, mode)
        expected, classes = predictor.predict_normalised(x)[0].max(0)
        torch.testing.assert_close(confidence, expected)
        assert torch.equal(predicted, classes) and torch.equal(target, mask[0])
        assert confidence.max() <= 1 + 1e-6


def test_the_diagram_is_drawn_as_high_as_the_shares_are():
    """Bars start at 0, empty bins have none, and a line marks the threshold."""
    shares = [None, 0.0, *(100 * place / 14 for place in range(2, 15))]
    trust = {"threshold": 0.5, "ece": 4.0, "bin_accuracy": shares, "bin_pixels": shares}
    for axis in (figure := reliability_diagram(trust, 3)).axes:
        bars = [bar.get_height() for bar in axis.patches]
        np.testing.assert_allclose(bars[1:], shares[1:])
        assert np.isnan(bars[0]) and axis.lines[0].get_xdata() == [50, 50]
    assert figure.axes[0].get_title() == "pseudo-labels, epoch 3: calibration error 4.0 %"
    nothing = trust | {
        "ece": None,
        "bin_accuracy": [None] * CONFIDENCE_BINS,
        "bin_pixels": [None] * CONFIDENCE_BINS,
    }
    picture = as_image(reliability_diagram(nothing, 3))
    assert picture.getextrema() == ((0, 255),) * 3 and picture != as_image(figure)


def test_labels_of_the_teacher_are_judged_and_nothing_else_changes(toy, train, tmp_path):
    """The diagram shows the counts of its validation; without pseudo-labels there is none."""
    one = ("--set", "epochs=1", "epoch_length=1", "log.pictures=1")
    more = {"on": [], "off": ["log.pseudo_labels=false"], "ema": ["method.teacher=ema"], "sup": []}
    records = {}
    for name, settings in more.items():
        kind = SupOnly if name == "sup" else FixMatch
        train(kind, toy.argv(tmp_path / name, *one, *settings))
        (line,) = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        records[name] = json.loads(line)
    judged = {
        name: [network for network, s in record["scores"].items() if "pseudo_labels" in s]
        for name, record in records.items()
    }
    assert judged == {"on": ["model"], "off": [], "ema": ["model_ema"], "sup": []}
    trust = records["on"]["scores"]["model"].pop("pseudo_labels")
    for key in ("scores", "train"):
        assert records["on"][key] == records["off"][key]
    written = Image.open(tmp_path / "on/pictures/epoch_001/reliability.png")
    assert np.array_equal(written, as_image(reliability_diagram(trust, 1)))
    assert not (tmp_path / "off/pictures/epoch_001/reliability.png").exists()
    events = EventAccumulator(str(tmp_path / "on/tensorboard"), {"images": 0})
    events.Reload()
    assert len(events.Images("pictures/reliability")) == 1
