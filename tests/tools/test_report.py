"""tools.report: a run as one page, from its files and its best checkpoint."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.folders import read_samples
from engine.method import LEGEND
from inference import evaluation_files
from inference.scores import Scores
from tests.conftest import json_lines
from tests.fake_runs import fake_run
from tools.report import __main__ as report
from tools.report.embedding import class_means, embedding
from tools.report.predictions import best_and_worst, compared_pictures, predict_validation
from tools.results.runs import Run
from tools.sweep.schedule import result
from unimatch import UniMatch
from util.errors import UserError


@pytest.fixture
def page_of(run):
    def write(folder, *more):
        out = run(report, folder, "--device", "cpu", *more).output()
        assert out.endswith(f"written  {folder / 'report.html'}\n")
        return (folder / "report.html").read_text()

    return write


def test_the_page_of_a_real_run(trained, page_of):
    page = page_of(trained)
    outside = re.findall(r'(?:src|href)="(?!data:)[^"]*"|url\(|<script|<link', page)
    assert not outside  # the page loads nothing else
    assert "Are the pseudo-labels right?" not in page and "Pictures of epoch" not in page
    assert "Features" not in page
    found = Run(trained)
    best = max(found.curve("model", "miou").values())
    assert f"mIoU {best:.2f}" in page, "the checkpoint's score is the logged one"
    assert re.search(r"\(95 % interval [\d.]+ to [\d.]+, 3 images\)", page)
    for words in ("SupOnly on toy/3, seed 0", "labeled 3, unlabeled 0, val 3", "crop_size: 33",
                  "Best", "Worst", "images/v0.jpg: mIoU", found.starts[0].commit):  # fmt: skip
        assert words in page, words
    scalars = len(found.epochs[-1].train)
    assert page.count("data:image/svg+xml") == 3 + scalars, "and the confusion matrix"
    assert page.count("data:image/jpeg") == 3, "two best images, one worst"
    assert LEGEND["x"] in page, "each loss is explained"
    for score in ("IoU", "F1", "precision", "recall", "95 %"):
        assert f'<th class="n">{score}</th>' in page


def test_the_embedding_of_decoder_features(trained, run, page_of, monkeypatch):
    pytest.importorskip("sklearn")
    page = page_of(trained, "--embedding")
    assert "placed by t-SNE" in page and "Not available" not in page
    with pytest.raises(UserError, match="--embedding: found 3 points .*, expected at least 4"):
        embedding(Run(trained), "model", torch.device("cpu"), limit=1)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    err = run(report, trained, "--embedding").mistake()
    assert "needs sklearn. Fix: pip install -r" in err


def test_class_means_are_those_of_the_last_convolutions_input(trained):
    """Use a network of one convolution: class means are mean normalised colours."""
    config = Run(trained).config
    config = config.model_copy(update={"crop_size": 20})  # crops images to 40 pixels
    samples = read_samples(config.data.val, config.data, masks=True).samples
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1))
    found, classes = class_means(network, samples, config, torch.device("cpu"))
    expected = []
    for sample in samples:
        image, mask = (np.array(Image.open(f)) for f in (sample.image_file, sample.mask_file))
        top, left = (max(side - 40, 0) // 2 for side in mask.shape)
        image, mask = (array[top : top + 40, left : left + 40] for array in (image, mask))
        values = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        expected += [(c, values[mask == c].mean(0)) for c in range(3) if (mask == c).any()]
    assert classes.tolist() == [c for c, _ in expected] and len(expected) > 3
    np.testing.assert_allclose(found, [mean for _, mean in expected], atol=1e-5)


def test_page_shows_pictures_and_pseudo_labels(toy, train, tmp_path, page_of):
    train(UniMatch, toy.argv(tmp_path / "run", "--set", "log.pictures=2"))
    last = Run(tmp_path / "run").epochs[-1].scores["model"].pseudo_labels
    (tmp_path / "run/pictures/epoch_002/val_01.png").write_bytes(b"no picture")
    page = page_of(tmp_path / "run", "--limit", 2)
    for words in ("2 validation images, model", "Are the pseudo-labels right?",
                  "Pseudo-labels by model",
                  f"threshold of {last.threshold:.3f}", f"{last.kept:.1f} % of the pixels",
                  "labelled as", "Pictures of epoch 2", "validation image 2",
                  "unlabelled image 2"):  # fmt: skip
        assert words in page, words
    assert "val_01.png: cannot identify" in page and page.count("data:image/jpeg") == 2 + 3


def test_pseudo_labels_of_which_none_passed(toy, tmp_path, page_of):
    folder = fake_run(tmp_path / "run", toy, [10.0, 20.0], teacher=[15.0, 25.0])
    lines = json_lines(folder / "metrics.jsonl")
    none = {"threshold": 0.95, "kept": 0.0, "precision": None, "ece": None,
            "class_kept": [0.0, None, 0.0], "class_precision": [None] * 3,
            "bin_pixels": [None] * 15, "bin_confidence": [None] * 15,
            "bin_accuracy": [None] * 15}  # fmt: skip
    for line in lines:
        line["scores"]["model_ema"]["pseudo_labels"] = none
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = page_of(folder)
    assert "Pseudo-labels by model_ema" in page and "of these pseudo-labels" not in page


def test_whole_images_are_predicted_where_validation_cropped_them(trained, page_of):
    for file in ("config.yaml", "metrics.jsonl"):
        text = (trained / file).read_text()
        assert "original" in text
        (trained / file).write_text(text.replace("original", "center_crop"))
    page = page_of(trained)
    assert "3 validation images, model, original: mIoU" in page


def test_the_mean_of_the_classes_present_is_shown_where_one_is_absent(
    trained, page_of, monkeypatch
):
    absent = torch.tensor([False, False, True])
    monkeypatch.setattr(Scores, "absent", property(lambda _: absent))
    assert re.search(r"mIoU \d+\.\d+.*, \d+\.\d+ of the classes present,", page_of(trained))


def judged(folder, shown):
    """Return the predictions of a run, and its best and worst images."""
    found = predict_validation(Run(folder), "model", torch.device("cpu"), limit=None)
    return found, *best_and_worst(found, shown)


def test_best_and_worst_are_in_order_and_add_up(trained):
    found, best, worst = judged(trained, shown=2)
    assert len(found.samples) == 3 and len(best) == 2 and len(worst) == 1
    assert best[0][1] >= best[1][1] >= worst[0][1]
    masks = [np.array(Image.open(sample.mask_file)) for sample in found.samples]
    assert int(found.scores.confusion.sum()) == sum(int((mask != 255).sum()) for mask in masks)
    made = compared_pictures(found, best + worst)
    assert len({mask.shape for mask in masks}) == 3
    assert len({image.size for image, _ in made}) == 1


@pytest.mark.parametrize("shown", [1, 2, 9])
def test_no_image_is_both_best_and_worst(shown, trained, monkeypatch):
    monkeypatch.setattr(evaluation_files, "image_miou", lambda *_: 0.5)
    _, best, worst = judged(trained, shown)
    indices = [index for index, _ in best + worst]
    assert len(indices) == len(set(indices)) == min(3, 2 * shown)


def test_an_image_without_a_labelled_pixel_is_neither_best_nor_worst(trained):
    data = Run(trained).config.data
    sample = read_samples(data.val, data, masks=True).samples[0]
    blank = np.full_like(np.array(Image.open(sample.mask_file)), 255)
    Image.fromarray(blank).save(sample.mask_file)
    found, best, worst = judged(trained, shown=3)
    assert len(found.samples) == 3 and len(best) == len(worst) == 1
    assert 0 not in {index for index, _ in best + worst}


def test_where_data_or_checkpoint_are_missing_the_page_says_so(trained, page_of):
    (trained / "best.pth").unlink()
    page = page_of(trained)
    assert "Not available: " in page and "best.pth: no such checkpoint" in page
    val = trained.parent / "toy/val.txt"
    val.write_text("".join(val.read_text().splitlines(keepends=True)[1:]))
    assert "may have been trained on some" in page_of(trained)
    val.unlink()
    assert "val.txt: no such split file" in page_of(trained)


def test_an_unfinished_run_and_one_that_has_ended_no_epoch(toy, run, tmp_path):
    for name, scores in (("half", [10.0]), ("none", [])):
        command = ["--force"] if scores else []
        fake_run(tmp_path / name, toy, scores, epochs=2, command=command, starts=2)
        run(report, tmp_path / name, "--out", tmp_path / f"{name}.html").output()
    page = (tmp_path / "half.html").read_text()
    assert "Unfinished: epoch 1 of 2" in page and "The run was resumed with --force" in page
    page = (tmp_path / "none.html").read_text()
    assert "Unfinished: epoch 0 of 2" in page and "No epoch has ended yet" in page
    assert "--force" not in page


def test_mistakes_give_one_error_line(toy, user_error, tmp_path):
    folder = fake_run(tmp_path / "run", toy, [10.0])
    (tmp_path / "notes.html").write_text("mine")
    for argv, words in (
        ((tmp_path,), "no run directory (no starts.jsonl in it)"),
        ((folder, "--out", tmp_path / "notes.html"), "is not a report of this command"),
        ((folder, "--out", tmp_path / "nowhere/page.html"), "does not exist"),
        ((folder, "--limit", "0"), "--limit: found 0, expected 1 or more"),
    ):
        assert words in user_error(report, *argv)
    assert (tmp_path / "notes.html").read_text() == "mine"


def test_the_best_is_by_the_score_that_chooses_the_checkpoint(toy, tmp_path, page_of):
    first = toy.tree["data"]["classes"][0]
    select = {"evaluation": {"mode": "original", "select": f"iou:{first}"}}
    folder = fake_run(tmp_path / "run", toy, [30.0, 20.0], settings=select)
    page = page_of(folder)
    assert f"best IoU of {first}" in page and ">20.00<" in page and ">10.00<" in page
    assert f"model IoU of {first} 10.0, best 20.0 (epoch 1)" in result(Run(folder))
