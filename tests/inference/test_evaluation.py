"""Prediction modes and scores against literal transcriptions."""

import itertools
import json
import re
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import jaccard_score
from torch import nn

import evaluate as evaluate_script
from inference.evaluation import evaluate, volume_indices
from inference.predictor import (
    Predictor,
    logits_of,
    logits_of_square,
    predict_sliding,
    probabilities_of,
)
from inference.scores import Scores, score_table
from metrics.calibration import PseudoLabelScores
from model.checkpoint import load, network_state
from supervised import SupOnly
from tests.batches import Local, batches
from tests.conftest import REPOSITORY, json_lines, saved, write_sample
from util.config.loading import load_config
from util.errors import UserError
from util.normalize import mean_and_std

CPU = torch.device("cpu")


def predict(network, image, config, mode):
    return Predictor(network, config, CPU, mode).predict_normalised(image)


@pytest.mark.parametrize(
    "size, crop",
    [((20, 33), 10), ((7, 30), 10), ((11, 17), 10), ((9, 6), 9), ((10, 13), 9), ((15, 16), 9)],
)
@pytest.mark.parametrize("border", ["cut", "shift"])
def test_sliding_window(size, crop, border):
    """Windows smaller and as large as the image, and at whole strides: none occurs twice."""
    image = torch.randn(1, 3, *size)
    h, w = size
    total = torch.zeros(1, 6, h, w)

    def places(side):  # as published, one window after the other
        place = 0
        while place < side:
            if border == "shift":
                place = min(place, max(side - crop, 0))
            yield slice(place, place + crop)
            if border == "shift" and place + crop >= side:
                break
            place += int(crop * 2 / 3)

    for rows, columns in itertools.product(places(h), places(w)):
        total[:, :, rows, columns] += Local()(image[:, :, rows, columns]).softmax(1)
    expected = total / total.sum(1, keepdim=True)
    for batch in (1, 3, 8):
        network, sizes = Local(), []
        network.register_forward_pre_hook(lambda _, args, sizes=sizes: sizes.append(len(args[0])))
        found = predict_sliding(partial(probabilities_of, network), image, crop, border, batch)
        torch.testing.assert_close(found, expected)
        assert max(sizes) <= batch


def test_whole_image_of_a_patch_network():
    network = Local()
    network.size_multiple = 14
    image = torch.randn(1, 3, 30, 50)
    resized = F.interpolate(image, (28, 56), mode="bilinear", align_corners=True)
    expected = F.interpolate(network(resized), (30, 50), mode="bilinear", align_corners=True)
    torch.testing.assert_close(logits_of(network, image), expected)


def test_resize_mode(toy):
    config = load_config(toy.config)
    image = torch.randn(1, 3, 30, 50)
    resized = F.interpolate(image, (33, 33), mode="bilinear", align_corners=False)
    logits = Local()(resized)
    expected = F.interpolate(logits, (30, 50), mode="bilinear", align_corners=False)
    torch.testing.assert_close(predict(Local(), image, config, "resize"), expected.softmax(1))


@pytest.mark.parametrize("mode", ["original", "sliding_window", "resize"])
@pytest.mark.parametrize("patch, flip", [(1, True), (4, True), (4, False)])
def test_test_time_augmentation(mode, patch, flip, toy):
    network, image = Local(), torch.randn(1, 3, 30, 50)
    network.size_multiple = patch
    sets = ["crop_size=12", f"evaluation.flip={flip}", "evaluation.scales=[0.5, 1, 1.4]"]
    config = load_config(toy.config, sets)
    total = torch.zeros(1, 6, 30, 50)
    for h, w, side in ((15, 25, 6), (30, 50, 12), (42, 70, 17)):
        for mirrored in (False, True)[: 1 + flip]:
            view = torch.flip(image, [3]) if mirrored else image
            if mode == "resize":
                p = logits_of_square(network, view, side).softmax(1)
            else:
                view = F.interpolate(view, (h, w), mode="bilinear", antialias=True)
                if mode == "sliding_window":
                    p = predict_sliding(partial(probabilities_of, network), view, 12, "cut", 8)
                else:
                    p = logits_of(network, view).softmax(1)
                p = F.interpolate(p, (30, 50), mode="bilinear")
            total += torch.flip(p, [3]) if mirrored else p
    expected = total / total.sum(1, keepdim=True)
    torch.testing.assert_close(predict(network, image, config, mode), expected)


def test_probabilities_and_mask_of_an_image(toy):
    config = load_config(toy.config)
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    predictor = Predictor(Local().eval(), config, CPU)
    found = predictor.probabilities(image)
    mean, std = mean_and_std(config, CPU)
    x = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    torch.testing.assert_close(found, Local()((x - mean) / std).softmax(1)[0])
    assert (found.argmax(0).numpy() == predictor.mask(image)).all()
    with pytest.raises(TypeError, match="found torch.int64, expected uint8"):
        predictor.probabilities(image.astype(np.int64))


class Colour(nn.Module):
    """A network that predicts a class from the red channel, 0, 100, 200 -> 0, 1, 2."""

    def forward(self, x):
        red = x[:, :1]
        return torch.cat([-(red - v).abs() for v in (0.0, 100 / 255, 200 / 255)], dim=1)


@pytest.fixture
def plain(toy):
    return load_config(toy.config, ["data.mean=[0,0,0]", "data.std=[1,1,1]"])


def evaluated(config, masks, predictions, mode="original", volumes=None, model=None):
    volumes = volumes or [0] * len(masks)
    return evaluate(
        model or Colour(), batches(masks, predictions), config, mode=mode, device=CPU,
        volumes=volumes,
    )  # fmt: skip


def test_scores(plain):
    rng = np.random.default_rng(0)
    masks = [rng.integers(0, 3, (7 + i, 9), dtype=np.uint8) for i in range(4)]
    predictions = [np.where(rng.random(m.shape) < 0.7, m, 1) for m in masks]
    for mask in masks:
        mask[0, :3] = 255
    model = Colour().train()
    model.frozen = nn.BatchNorm2d(3).eval()
    scores = evaluated(plain, masks, predictions, model=model)
    assert model.training and not model.frozen.training
    truth = np.concatenate([m.ravel() for m in masks])
    found = np.concatenate([p.ravel() for p in predictions])[truth != 255]
    truth = truth[truth != 255]
    expected = jaccard_score(truth, found, average=None)
    np.testing.assert_allclose(scores.iou, expected, rtol=1e-6)
    assert scores.miou == pytest.approx(100 * np.mean(expected))
    assert scores.accuracy == pytest.approx(100 * (truth == found).mean())
    assert scores.confusion.sum() == truth.size and scores.dice is None


class Overflowing(Colour):
    """Return infinite logits for the pixels of class 2."""

    def forward(self, x):
        return super().forward(x) / (x[:, :1] != 200 / 255)


@pytest.mark.parametrize("mode", ["original", "sliding_window", "resize"])
def test_outputs_that_are_not_finite(mode, plain):
    masks = [np.full((40, 40), i, np.uint8) for i in range(3)]
    labels = PseudoLabelScores(3, 0.5, CPU)
    message = r"not finite \(precision: float32\). Fix: "
    with pytest.raises(UserError, match=f"1 of 3 images: .* {message}"):
        evaluate(Overflowing(), batches(masks, masks), plain, mode=mode, device=CPU,
                 volumes=[0, 0, 0], pseudo_labels=labels)  # fmt: skip
    predictor = Predictor(Overflowing(), plain, CPU, mode)
    assert (predictor.mask(np.full((40, 40, 3), 100, np.uint8)) == 1).all()
    with pytest.raises(UserError, match=f"photo.png: .* {message}"):
        predictor.probabilities(np.full((40, 40, 3), 200, np.uint8), "photo.png")


def test_dice_of_volumes_with_slices_in_any_order(plain):
    """Compute 2 |P & G| / (|P| + |G|) of each volume; volume 0 has slices 0 and 2."""
    options = plain.evaluation.model_copy(update={"volume_pattern": "(v)"})
    config = plain.model_copy(update={"evaluation": options})
    masks = [[[0, 1, 1, 2]], [[0, 0, 2, 2]], [[1, 1, 1, 255]], [[0, 1, 2, 2]]]
    found = [[[0, 1, 0, 2]], [[0, 2, 2, 2]], [[1, 0, 1, 1]], [[0, 1, 1, 2]]]
    arrays = (map(partial(np.array, dtype=np.uint8), x) for x in (masks, found))
    scores = evaluated(config, *map(list, arrays), volumes=[0, 1, 0, 2])
    by_volume = np.array([
        [2 * 1 / (1 + 3), 2 * 3 / (5 + 3), 2 * 1 / (1 + 1)],
        [2 * 1 / (2 + 1), 1, 2 * 2 / (2 + 3)],  # mask and prediction lack class 1
        [2 * 1 / (1 + 1), 2 * 1 / (1 + 2), 2 * 1 / (2 + 1)],
    ])  # fmt: skip
    np.testing.assert_allclose(scores.dice, by_volume.mean(0), rtol=1e-6)
    assert scores.confusion.sum() == 15
    assert len(scores.counts) == 4 and len(scores.volume_counts) == 3


def test_center_crop_scores_the_middle_only(plain):
    mask = np.zeros((53, 43), np.uint8)
    prediction = np.ones((53, 43))
    prediction[10:43, 5:38] = 0  # the middle 33 x 33
    scores = evaluated(plain, [mask], [prediction], "center_crop")
    assert scores.confusion[0, 0] == 33 * 33 == scores.confusion.sum()


def test_tables_name_absent_classes_and_dice():
    scores = Scores(torch.tensor([[8, 2, 0], [0, 10, 0], [0, 0, 0]]))
    assert scores.absent.tolist() == [False, False, True]
    assert scores.miou == pytest.approx(100 * (0.8 + 10 / 12) / 3)
    assert scores.miou_present == pytest.approx(100 * (0.8 + 10 / 12) / 2)
    text = score_table(scores, ["sky", "tree", "road"])
    assert "road" in text and "(absent)" in text and "mIoU of classes present" in text
    assert text.startswith("sky  ")
    scores = Scores(torch.tensor([[6, 2], [1, 3]]), torch.tensor([0.25, 0.5]))
    lines = score_table(scores, ["ventricle", "wall"]).splitlines()
    assert re.split(" {2,}", lines[0].strip()) == ["IoU", "volume Dice"]
    assert [line.split() for line in lines[1:3]] == [
        ["ventricle", f"{600 / 9:.2f}", "25.00"], ["wall", "50.00", "50.00"]
    ]  # fmt: skip
    assert re.split(" {2,}", lines[-1]) == ["mean Dice (without class 0)", "50.00"]
    assert len(lines[-1]) == len(lines[0])  # below the heading "volume Dice", not "IoU"


def test_the_log_of_a_training_shows_few_of_many_classes():
    """Class 3 has false positives; class 25 is absent."""
    hit = torch.arange(10, 36)
    hit[25] = 0
    confusion = torch.diag(hit).index_fill(1, torch.tensor([3]), 9)
    confusion[25] = 0
    scores = Scores(confusion, torch.rand(26))
    names = [f"class {number}" for number in range(26)]
    *classes, rest, miou, _present, _accuracy, _dice = score_table(
        scores, names, is_short=True
    ).splitlines()
    assert [line.split()[1] for line in classes[1:]] == ["3", "0", "1", "2", "4"]
    assert rest.split() == ["...", "21", "more", "in", "metrics.jsonl"] and "mIoU" in miou
    assert len(score_table(scores, names).splitlines()) == 1 + 26 + 4
    few = Scores(torch.eye(25, dtype=torch.int64))
    assert score_table(few, names[:25], is_short=True) == score_table(few, names[:25])


def test_an_image_without_volume_is_refused_before_training(toy, training_error, tmp_path):
    images = ["p1_01.png", "p1_02.png", "p2_01.png"]
    assert volume_indices(images, r"(p\d+)_") == [0, 0, 1]
    assert volume_indices(images, None) == [0, 0, 0]
    for pattern in ("v0|(v1)", "v(p*)"):
        with pytest.raises(UserError, match="names no volume of images/v0.jpg"):
            volume_indices(["images/v0.jpg"], pattern)
    volumes = "evaluation={select: dice, volume_pattern: '(p\\d+)'}"
    output = training_error(SupOnly, toy.argv(tmp_path / "run", "--set", volumes))
    assert "'(p\\d+)' names no volume of images/v0.jpg" in output
    assert not (tmp_path / "run/metrics.jsonl").exists()


@pytest.mark.parametrize(
    "overrides",
    [
        ["evaluation.flip=true", "evaluation.scales=[0.75, 1]"],
        ["evaluation.mode=sliding_window", "evaluation.window_border=shift"],
        ["evaluation.mode=center_crop", "precision=bfloat16"],
        ["evaluation.mode=resize", "evaluation.volume_pattern='(v.)'"],
        ["model={network: dpt, backbone: test_vit, layers: [1, 2, 4, 6], pretrained: none}",
         "crop_size=32", "optimizer={name: adamw, weight_decay: 0.01, layer_decay: 0.8}"],
    ],
)  # fmt: skip
def test_evaluate_gives_the_score_of_training(overrides, toy, train, run, tmp_path):
    options = ["--set", "epochs=1", *overrides]
    train(SupOnly, toy.argv(tmp_path / "run", *options))
    argv = ["--checkpoint", tmp_path / "run/latest.pth", "--json", tmp_path / "scores.json"]
    run(evaluate_script, "--config", toy.config, *options, *argv).output()
    scores = json.loads((tmp_path / "scores.json").read_text())
    logged = json_lines(tmp_path / "run/metrics.jsonl")[-1]["scores"]["model"]
    for key in ("miou", "accuracy", "iou", "mode"):
        assert scores[key] == logged[key], key
    assert scores["f1"] == logged["f1"] == pytest.approx(scores["class_scores"]["F1"])
    assert ("dice" in scores) == any("volume" in o for o in overrides)
    assert scores["images"] == 3


@pytest.mark.parametrize("select, expected", [
    ("miou", 100 * (0.5 + 0.25 + 0) / 3), ("dice", 100 * (0.6 + 0.2) / 2), ("iou:tree", 25.0),
])  # fmt: skip
def test_the_selected_score(select, expected, toy):
    confusion = torch.tensor([[3, 3, 0], [0, 1, 0], [0, 0, 0]])
    scores = Scores(confusion, torch.tensor([0.9, 0.6, 0.2]))
    config = load_config(
        toy.config, [f"evaluation.select={select}", "evaluation.volume_pattern='(v)'"]
    )
    assert scores.selected(config) == pytest.approx(expected)


@pytest.mark.parametrize("keys, message", [
    ("{select: dice}", "dice needs evaluation.volume_pattern"),
    ("{select: 'iou:car'}", "found 'iou:car', expected miou, dice or iou:CLASS"),
    ("{select: best}", "found 'best'"),
])  # fmt: skip
def test_unknown_scores_are_refused(keys, message, toy):
    with pytest.raises(UserError, match=message):
        load_config(toy.config, [f"evaluation={keys}"])


def test_a_run_keeps_the_checkpoint_of_best_dice(toy, train, tmp_path, capsys):
    pattern = "evaluation={select: dice, volume_pattern: '(v.)'}"
    train(SupOnly, toy.argv(tmp_path / "run", "--set", pattern, "epochs=3"))
    state = saved(tmp_path / "run/best.pth")
    history = saved(tmp_path / "run/latest.pth")["history"]
    scores = [record["scores"]["model"]["mean_dice"] for record in history]
    assert state["best"]["model"]["score"] == pytest.approx(max(scores))
    assert state["epoch"] == scores.index(max(scores)) + 1
    assert f"best mean Dice {max(scores):.2f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "split, lines, warnings",
    [
        ("test", ["t", "l", "v", "u"], ["labeled, whose", "val, which", "unlabeled, which"]),
        ("test", ["t", "l"], ["labeled, whose"]),
        ("test", ["t"], []),
        ("val", ["v"], []),
    ],
)
def test_images_seen_in_training(split, lines, warnings, trained, toy, run):
    toy.write_list(split, [write_sample(toy.root, f"{kind}0") for kind in lines])
    if "u" not in lines:
        toy.path("unlabeled").unlink()
    argv = ["--set", f"data.test={toy.path('test')}", "--split", split]
    code, output, err = run(evaluate_script, "--checkpoint", trained, *argv)
    found = re.findall(rf"test.txt: shares 1 of {len(lines)} images? with data\.(\w+, \w+)", output)
    assert code == 0 and found == warnings, output + err


def test_volumes_with_slices_in_two_splits(toy, trained, train, run, capsys):
    pattern = "evaluation.volume_pattern='(\\d)'"
    train(SupOnly, toy.argv(toy.folder / "run", "--dry-run", "--set", pattern))
    expected = f"val.txt: 3 of 3 volumes, such as 0, have slices in {toy.path('labeled')} too; "
    assert expected in capsys.readouterr().out
    toy.write_list("test", [write_sample(toy.root, f"t{i}") for i in (2, 7)])
    argv = ["--split", "test", "--set", f"data.test={toy.path('test')}", pattern]
    code, output, err = run(evaluate_script, "--checkpoint", trained, *argv)
    found = re.findall(r"test.txt: 1 of 2 volumes, such as 2, have slices in \S+/(\w+).txt", output)
    assert code == 0 and found == ["labeled", "val", "unlabeled"], output + err


def test_validation_images_that_were_replaced_since_training(trained, toy, run):
    """As `tools.prepare init --force` does: some may have been trained on."""
    argv = ["--checkpoint", trained]
    output = run(evaluate_script, *argv).output()
    note = "these images selected the best checkpoint; report a test split: --set data.test=FILE"
    assert "trained on some" not in output and note in output
    toy.write_list("val", toy.path("labeled").read_text().splitlines()[:2])
    assert (
        "the training was validated on; the network may have been trained"
        in run(evaluate_script, *argv)[1]
    )
    own = [*argv, "--set", f"data.val={toy.path('val')}"]
    assert "trained on some" not in run(evaluate_script, *own).output()  # asked for


def test_scores_that_cannot_be_printed_are_an_error(trained):
    argv = ["evaluate.py", "--checkpoint", trained / "best.pth", "--device", "cpu"]
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, *argv], cwd=REPOSITORY, stdout=full, check=False)
    assert done.returncode == 1


def test_another_config_than_the_runs_warns_where_scores_change(trained, run, tmp_path):
    own, other = trained / "config.yaml", tmp_path / "other.yaml"
    config = load_config(own)
    other.write_text(own.read_text().replace("save_every: null", "save_every: 7"))
    same = "--checkpoint", trained, "--config", other
    _, out, err = run(evaluate_script, *same)
    assert "warning: --config" not in out + err
    code, out, err = run(evaluate_script, *same, "--set", "crop_size=49")  # on purpose
    assert code == 0 and "warning: --config" not in out + err
    crop = f"crop_size: {config.crop_size}\n"
    other.write_text(own.read_text().replace(crop, "crop_size: 49\n"))
    code, _, err = run(evaluate_script, *same)
    assert code == 0 and err.startswith(
        f"warning: --config {other}: differs from {own} in crop_size ({config.crop_size} -> 49). "
        "Fix: leave out --config to use the run's\n"
    )
    code, out, err = run(evaluate_script, *same, "--set", f"crop_size={config.crop_size}")
    assert code == 0 and "warning: --config" not in out + err
    own.write_text("of_another_version: 1\n")
    assert run(evaluate_script, *same)[0] == 0


def test_the_next_command_names_the_same_network(trained, pair_run, run, tmp_path):
    shutil.copy(trained / "best.pth", tmp_path / "alone.pth")
    config = ["--config", trained / "config.yaml"]
    code, out, err = run(evaluate_script, "--checkpoint", tmp_path / "alone.pth", *config)
    same = f"--checkpoint {tmp_path}/alone.pth --config {trained}/config.yaml"
    assert code == 0 and f"next     python predict.py {same} --images" in out, err
    out = run(evaluate_script, "--checkpoint", pair_run).output()
    assert " --images FOLDER --second FOLDER --save-path OUT" in out
    weights, two = network_state(load(trained / "best.pth"), trained), tmp_path / "two.pth"
    torch.save({"model": weights, "model_ema": weights}, two)
    out = run(evaluate_script, "--checkpoint", two, "--which", "model_ema", *config).output()
    assert "\nmodel_ema: 3 images of " in out and f"{two} --which model_ema --config " in out
