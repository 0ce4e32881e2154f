"""Check that `tools.autolabel` writes a labelled dataset and a correct ranking."""

import csv
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import inference.autolabel
from dataset.mask_files import LabelLookup, open_mask
from dataset.reader import Reader
from dataset.validation import read_splits
from inference.autolabel import encoding_of_labels, unlabelled_samples
from inference.predictor import (
    Predictor,
    confidence,
    entropy,
    least_confidence,
    margin,
    to_mask,
)
from model.trained import load_trained
from tests.conftest import write_sample
from tools import active_learning, autolabel
from tools.check_data import __main__ as check_data
from util.config.loading import dump_config, load_config
from util.errors import UserError

CPU = torch.device("cpu")


def test_measures_of_uncertainty():
    p = torch.tensor([[1.0, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.3, 0.2]]).T[:, None]
    assert confidence(p)[0].tolist() == pytest.approx([1, 1 / 3, 0.5])
    assert least_confidence(p)[0].tolist() == pytest.approx([0, 2 / 3, 0.5])
    assert margin(p)[0].tolist() == pytest.approx([0, 1, 0.8])
    between = -sum(v * math.log(v) for v in (0.5, 0.3, 0.2)) / math.log(3)
    assert entropy(p)[0].tolist() == pytest.approx([0, 1, between])


@pytest.fixture
def command(trained, run, tmp_path):
    def labelled(*more):
        return run(autolabel, "--checkpoint", trained, "--out", tmp_path / "out", *more)

    return labelled


def predictions(tmp_path, names):
    """Return mask and probabilities by the name of an unlabelled image."""
    config = load_config(tmp_path / "run/config.yaml")
    network = load_trained(config, tmp_path / "run/best.pth", "model", CPU)
    samples = {s.image: s for s in read_splits(config.data, True).unlabeled.samples}
    reader, predictor = Reader(config.data), Predictor(network, config, CPU)
    images = {name: reader.image(samples[f"{name}.jpg"]) for name in names}
    found = {name: predictor.probabilities(image) for name, image in images.items()}
    return {name: (to_mask(one), one) for name, one in found.items()}


NAMES = [f"images/u{i}" for i in range(5)]
MAPS = [None, {10: "sky", 20: "tree", 30: "road"},
        {"10,0,0": "sky", "20,0,0": "tree", "30,0,0": "road", "other": "ignore"},
        {10: "sky", 20: "tree", 30: "road", "other": "sky"},
        {"10,0,0": "sky", "20,0,0": "tree", "30,0,0": "road", "other": "sky"}]  # fmt: skip


@pytest.mark.parametrize("label_map", MAPS)
def test_masks_hold_the_confident_pixels(label_map, command, toy, run, tmp_path):
    found = predictions(tmp_path, NAMES)
    threshold = float(torch.cat([p.amax(0).flatten() for _, p in found.values()]).median())
    masks = toy.root / "masks"
    for path in masks.iterdir() if label_map else ():
        mask = np.array(Image.open(path)).astype(np.uint8)
        rest = 255 if "other" in label_map else 10
        own = np.where(mask == 255, rest, 10 * mask + 10).astype(np.uint8)
        own = own if 10 in label_map else np.stack([own, 0 * own, 0 * own], -1)
        Image.fromarray(own).save(path)
    more = ["--set", f"data.label_map={label_map}"] if label_map else []
    output = command("--threshold", threshold, *more).output()
    new = load_config(tmp_path / "out/config.yaml")
    old = load_config(tmp_path / "run/config.yaml", more[1:]).data
    for path in masks.iterdir():  # keep their meaning
        assert open_mask(path, LabelLookup(old)) == open_mask(path, LabelLookup(new.data))
    passed = 0
    for name, (mask, probabilities) in found.items():
        expected = mask.copy()
        sure = probabilities.max(0).values.numpy() >= threshold
        expected[~sure] = 255
        path = tmp_path / f"out/masks/{name}.png"
        assert (np.array(open_mask(path, LabelLookup(new.data))) == expected).all()
        passed += sure.mean() / 5
    assert 0 < passed < 1 and f"on {passed:.1%} of an image's pixels" in output
    lists = read_splits(new.data, unlabeled=False)
    assert len(lists.labeled.samples) == 3 + 5 and new.data.unlabeled is None
    run(check_data, "--config", tmp_path / "out/config.yaml").output()


def test_class_weights_are_counted_again(command, trained, tmp_path):
    config, starts = load_config(trained / "config.yaml"), trained / "starts.jsonl"
    counted = config.criterion.model_copy(update={"class_weights": (1.0, 2.0, 3.0)})
    (trained / "config.yaml").write_text(
        dump_config(config.model_copy(update={"criterion": counted}))
    )
    start = json.loads(starts.read_text().splitlines()[-1]) | {"class_weights": "auto"}
    starts.write_text(json.dumps(start) + "\n")
    given = ["--set", "criterion.class_weights=[3,2,1]"]
    for folder, more, expected in (("a", [], "auto"), ("b", given, (3, 2, 1))):
        command("--threshold", 0, "--out", tmp_path / folder, *more).output()
        written = load_config(tmp_path / folder / "config.yaml")
        assert written.criterion.class_weights == expected


def test_images_without_labels_stay_unlabelled(command, run, tmp_path):
    tops = {n: float(p.max()) for n, (_, p) in predictions(tmp_path, NAMES).items()}
    order = sorted(tops, key=tops.get)
    between = (tops[order[1]] + tops[order[2]]) / 2
    teacher = ["--set", "method.teacher=ema"]
    command("--threshold", between, "--out", tmp_path / "part", *teacher).output()
    path = tmp_path / "part/config.yaml"
    config = load_config(path)
    assert config.method == {"teacher": "ema"}
    lists = read_splits(config.data, unlabeled=True)
    assert len(lists.labeled.samples) == 3 + 3 and len(lists.unlabeled.samples) == 2
    run(check_data, "--config", path).output()
    code, _, err = command("--threshold", 0, "--tta", "flip", "1", "2", *teacher)
    config = load_config(tmp_path / "out/config.yaml")
    assert config.data.unlabeled is None and config.method == {}  # supervised.py has no teacher
    assert not config.evaluation.flip and config.evaluation.scales == (1.0,)


def test_a_threshold_that_no_pixel_reaches_writes_no_ranking(command, tmp_path):
    """The proposed command, with a lower threshold and another folder, can write the same files."""
    more = ["--rank", tmp_path / "rank.csv", "--select", 2]
    err = command("--threshold", 1, *more).mistake()
    assert "no pixel of 5 images reaches the threshold 1. Fix: lower" in err
    assert not (tmp_path / "rank.csv").exists() and not (tmp_path / "out/next.txt").exists()
    command("--threshold", 0, "--out", tmp_path / "b", *more).output()
    err = command("--threshold", 0, "--out", tmp_path / "c", *more).mistake()
    assert f"rank.csv: exists already, and {tmp_path}/c is a new folder" in err
    assert not (tmp_path / "c").exists()


def test_the_ranking(command, toy, tmp_path):
    found = predictions(tmp_path, NAMES)
    measures = {"entropy": entropy, "margin": margin, "least_confidence": least_confidence}
    for acquisition, measure in measures.items():
        (tmp_path / "rank.csv").unlink(missing_ok=True)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        output = command("--threshold", 0, "--rank", tmp_path / "rank.csv", "--select", 2,
                       "--acquisition", acquisition).output()  # fmt: skip
        assert f"5 images, by {acquisition}" in output
        scores = {f"{toy.root / name}.jpg": measure(p).mean() for name, (_, p) in found.items()}
        with (tmp_path / "rank.csv").open(newline="") as file:
            head, *rows = csv.reader(file)
        assert head[:3] == ["rank", "image", f"score ({acquisition})"]
        written = [float(row[2]) for row in rows]
        assert {row[1] for row in rows} == set(scores) and written == sorted(written, reverse=True)
        assert written == pytest.approx([scores[row[1]].item() for row in rows], abs=1e-6)
        chosen = (tmp_path / "out/next.txt").read_text().split()
        assert [str(toy.root / line) for line in chosen] == [row[1] for row in rows[:2]]
        rest = (tmp_path / "out/rest.txt").read_text().split()
        assert len(rest) == 3 and not set(rest) & set(chosen)


def test_pixels_without_data_do_not_count_in_the_ranking(command, tmp_path):
    """An image without any data is certain, and gets no label."""
    folder, pixels = tmp_path / "tiles", np.full((40, 60, 3), 77, np.uint8)
    folder.mkdir()
    for name, rows in (("whole", 0), ("part", 35), ("none", 40)):
        pixels[:rows] = 0
        Image.fromarray(pixels).save(folder / f"{name}.tif", tiffinfo={42113: "0"})
    assert "labels   2 images" in command("--threshold", 0, "--images", folder).output()
    with (tmp_path / "out/uncertainty.csv").open(newline="") as file:
        rows = {row.pop("image"): row for row in csv.DictReader(file)}
    assert set(rows["none"].values()) == {"0.000000"}
    config = load_config(tmp_path / "run/config.yaml")
    network = load_trained(config, tmp_path / "run/best.pth", "model", CPU)
    pixels[:35], pixels[35:] = 0, 77
    probabilities = Predictor(network, config, CPU).probabilities(pixels)[:, 35:]
    assert float(rows["part"]["entropy"]) == pytest.approx(entropy(probabilities).mean(), abs=1e-5)
    assert float(rows["part"]["labelled"]) == pytest.approx(5 / 40)


def test_it_continues_with_the_same_result(command, tmp_path):
    options = ["--threshold", 0, "--rank", tmp_path / "rank.csv"]
    command(*options).output()
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.*")}
    table = tmp_path / "out/uncertainty.csv"
    (tmp_path / "out/masks/images/u3.png").unlink()
    table.write_bytes(
        b"".join(line for line in before[table].splitlines(True) if b"u3" not in line)
    )
    assert "skipped  4 images already predicted" in command(*options).output()
    after = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.*")}
    assert sorted(before.pop(table).splitlines()) == sorted(after.pop(table).splitlines())
    assert before == after
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join([*lines, lines[1], lines[2][:-2]]))  # by two commands at once
    command(*options).output()
    assert before == {p: p.read_bytes() for p in before}
    err = command("--threshold", 0.5).mistake()
    assert "made with another checkpoint, config or options" in err
    (tmp_path / "out/config.yaml").write_text("mine: true\n")
    assert "config.yaml: exists with other content" in command(*options).mistake()


def test_failed_images_come_before_split_files(command, tmp_path, monkeypatch):
    save = inference.autolabel.save_picture

    def failing(picture, path):
        if path.name == "u3.png":
            raise UserError(f"{path}: no space left")
        save(picture, path)

    monkeypatch.setattr("inference.autolabel.save_picture", failing)
    code, output, err = command("--threshold", 0)
    assert code == 2 and "u3.png: no space left" in output and "no labels for 1 image, so" in err
    assert not (tmp_path / "out/labeled.txt").exists()
    monkeypatch.undo()
    command("--threshold", 0).output()
    assert "u3" in (tmp_path / "out/labeled.txt").read_text()


def test_other_images(command, toy, tmp_path):
    (toy.root / "images/v9.jpg").symlink_to("v0.jpg")
    output = command("--threshold", 0, "--images", toy.root / "images").output()
    assert "skipped  7 labelled, validation or test images" in output
    write_sample(tmp_path / "elsewhere", "x", mask=False)
    command("--threshold", 0, "--images", tmp_path / "elsewhere/images", "--out",
            tmp_path / "b").output()  # fmt: skip
    data = load_config(tmp_path / "b/config.yaml").data
    lists = read_splits(data, unlabeled=True)
    assert len(lists.labeled.samples) == 4 and len(lists.unlabeled.samples) == 5
    (toy.folder / "some.txt").write_text("images/u1.jpg\n")
    code, _, _ = command(
        "--threshold", 0, "--list", toy.folder / "some.txt", "--out", tmp_path / "c"
    )
    tree = yaml.safe_load((tmp_path / "c/config.yaml").read_text())
    assert code == 0 and tree["data"]["unlabeled"]["list"].endswith("c/unlabeled.txt")


def test_bad_input(command, toy, tmp_path):
    for more, message in (
        (["--threshold", "1.5"], "--threshold: found 1.5, expected a probability"),
        (["--select", "0"], "--select: found 0, expected 1 or more"),
        (["--rank", "no/such/rank.csv"], "its folder does not exist"),
        (["--list", "no.txt"], "no.txt: no such split file"),
        (["--set", "data.label_map={1: sky, 2: tree, other: road}"], "no value of class 'road'"),
        (["--tta", "mirror"], "--tta: found 'mirror', expected flip or scales"),
    ):
        err = command(*more).mistake()
        assert message in err
    for pair, message in (
        ("column", "--images: data.pair is set. Fix: name pairs in a split file"),
        ({"first": "A", "second": "B", "masks": "C"}, "split files of names have no column"),
    ):
        data = load_config(toy.change_data(pair=pair).config).data
        with pytest.raises(UserError, match=message):
            encoding_of_labels(data)
            unlabelled_samples(data, {"a": tmp_path / "a.png"}, None)


def test_active_learning_labels_by_the_ranking(toy, monkeypatch, run, tmp_path):
    """Both larger arms have equal budgets; labelled images are no longer unlabelled."""
    lines = [write_sample(toy.root, f"p{i}") for i in range(12)]
    toy.write_list("pool", lines)
    commands = []

    def script(*argv):
        argv = [str(word) for word in argv]
        commands.append(argv)
        folder = Path(argv[argv.index("--out" if "--out" in argv else "--save-path") + 1])
        if argv[0] == "-m":
            given = (folder.parents[1] / "first/unlabeled.txt").read_text().splitlines()
            given = given[::-1] if "margin" in argv else given
            (folder / "masks").mkdir(parents=True, exist_ok=True)
            (folder / "next.txt").write_text("\n".join(given[:3]))
            (folder / "config.yaml").write_text(toy.config.read_text())
        else:
            folder.mkdir(parents=True, exist_ok=True)
            score = {"first": 10, "entropy": 30, "margin": 40, "random": 20}[folder.parent.name]
            record = {"scores": {"model": {"miou": score + len(commands) // 5}}}
            (folder / "metrics.jsonl").write_text(json.dumps(record) + "\n")

    monkeypatch.setattr(active_learning, "run_script", script)
    argv = ["--config", toy.config, "--pool", toy.path("pool"), "--count", 3, "--seeds", 0, 1,
            "--save-path", tmp_path / "active"]  # fmt: skip
    output = run(active_learning, *argv).output()
    assert output.splitlines() == [
        "| seed | 3 labelled | + 3 by entropy | + 3 at random |", "|--:|--:|--:|--:|",
        "| 0 | 10.0 | 30.0 | 20.0 |", "| 1 | 11.0 | 31.0 | 21.0 |",
        "| mean | 10.5 | 30.5 | 20.5 |",
    ]  # fmt: skip
    for seed in (0, 1):
        listed = {}
        for arm in ("first", "entropy", "random"):
            folder = tmp_path / f"active/supervised/{seed}/{arm}"
            listed[arm] = set((folder / "labeled.txt").read_text().splitlines())
            rest = set((folder / "unlabeled.txt").read_text().splitlines())
            assert len(listed[arm]) == (3 if arm == "first" else 6) and listed[arm] <= set(lines)
            assert rest == {line.split()[0] for line in set(lines) - listed[arm]}
        labels = tmp_path / f"active/supervised/{seed}/entropy/labels"
        chosen = (labels / "next.txt").read_text().split()
        assert listed["first"] < listed["entropy"] and listed["first"] < listed["random"]
        assert {line.split()[0] for line in listed["entropy"] - listed["first"]} == set(chosen)

    def ranked_anew(*more):
        before = len(commands)
        output = run(active_learning, *argv, *more).output()
        return sum(argv[0] == "-m" for argv in commands[before:]), output

    assert ranked_anew()[0] == 0
    (labels / "config.yaml").unlink()  # killed between the files of one ranking
    assert ranked_anew()[0] == 1
    by_entropy = (labels / "next.txt").read_text()
    count, output = ranked_anew("--acquisition", "margin")
    assert count == 2 and "+ 3 by margin" in output and "| 0 | 1" in output and " | 4" in output
    assert (labels / "next.txt").read_text() == by_entropy
    for more, problem in (
        (["--count", 6], "--count: found 6"),
        (["--seeds", 0, -1], "--seeds: found -1, expected 0 or more"),
        (["--set", "data.label_map={1: sky, 2: tree, other: road}"], "no value of class 'road'"),
    ):
        assert problem in run(active_learning, *argv, *more).mistake()
