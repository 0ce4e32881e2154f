"""tools.results: differing or unfinished runs are averaged only with a remark."""

import csv
import errno
import io
import json
import os
import re
import shutil
from itertools import pairwise
from statistics import mean, stdev

import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure
from PIL import Image

from dataset.cross_validation import folds_digest
from dataset.protocols import fingerprint
from fixmatch import FixMatch
from tests.conftest import METHODS, REPOSITORY, json_lines
from tests.fake_runs import fake_run
from tools.results import __main__ as results
from tools.results.plots import (
    _plot_epochs,
    class_scores,
    label_curves,
    learning_curves,
    pseudo_label_curves,
)
from tools.results.published import SCORES, read_published
from tools.results.records import PseudoLabels
from tools.results.tables import FORMATS, collect
from util.config.data import Data


@pytest.fixture
def fake(toy, tmp_path):
    def write(name, scores, **options):
        return fake_run(tmp_path / "runs" / name, toy, scores, **options)

    write.runs = tmp_path / "runs"
    return write


@pytest.fixture
def rows(run):
    """Return the rows and remarks of runs, read from JSON."""

    def read(*argv):
        out = run(results, *argv, "--format", "json").output()
        found = json.loads(out)
        return found["rows"], found["remarks"]

    return read


def test_mean_and_deviation_over_seeds(fake, rows):
    for seed, scores in enumerate(([10, 40, 30], [20, 50, 60], [10, 20, 50])):
        fake(f"u/{seed}", scores, seed=seed)
    fake("s/0", [11, 22, 33], method="SupOnly", images={"unlabeled": 0})
    (semi, base), remarks = (found := rows(fake.runs))[0][::-1], found[1]
    assert not remarks and (semi["method"], semi["seeds"]) == ("UniMatch", [0, 1, 2])
    for name, values in (("best", [40, 60, 50]), ("last", [30, 60, 50])):
        assert semi[name] == {"mean": mean(values), "std": stdev(values), "values": values}
    assert semi["best_epochs"] == [2, 3, 3]
    assert (base["last"]["mean"], base["last"]["std"]) == (33, None)
    assert (semi["steps"], semi["step_seconds"], semi["peak_memory"]) == (30, 0.5, 2**30)
    assert (semi["labels"], semi["unlabeled"], semi["partition"]) == (3, 5, "3")


def seeds(folder, count, **options):
    return [(f"{folder}/{seed}", [10, 20], {"seed": seed, **options}) for seed in range(count)]


def folds(folder, unlabeled="unlabeled", **options):
    return [
        (f"{folder}/{n}", [n], {"digest": str(n), **options} | {
            kind: f"mine/fold_{n}/{name}.txt"
            for kind, name in (("labeled", "labeled"), ("val", "val"), ("unlabeled", unlabeled))
        })
        for n in (1, 2)
    ]  # fmt: skip


WEIGHTED = {"criterion": {"class_weights": [1.0, 2.0, 3.0]}}


@pytest.mark.parametrize(
    ("runs", "column", "expected"),
    [
        ([("a", [10, 40], {"teacher": [20, 30]})], "scored", ["student", "teacher"]),
        ([("a", [10], {"labeled": "splits/toy/7/labeled.txt", "digest": "0123456789ab"}),
          ("b", [10], {"labeled": "splits/toy/7/labeled.txt", "digest": "abcdefabcdef"})],
         "partition", ["7 (0123456789ab)", "7 (abcdefabcdef)"]),
        ([*seeds("a", 1, settings={"save_every": 5, "compile": True}), ("b", [9, 9], {"seed": 1})],
         "seeds", [[0, 1]]),
        ([*[(name, [10], {"method": name}) for name in "ABC"],
          ("D", [10], {"method": "D", "settings": {"crop_size": 65}})],
         "settings", ["", "", "", "crop_size=65"]),
        ([("A", [10], {"settings": WEIGHTED}), ("B", [10], {"settings": WEIGHTED, "method": "B"}),
          ("C", [10], {"method": "B"})],
         "settings", ["", "", "criterion.class_weights=None"]),
        ([*folds("a"), *folds("s", method="SupOnly", images={"unlabeled": 0}),
          *folds("b", "few", images={"unlabeled": 2})],
         "partition", ["mine"] * 3),
        ([*folds("a"), *folds("b", "few", images={"unlabeled": 2})],
         "settings", ["unlabeled=5", "unlabeled=2"]),
        ([("A", [10], {"images": {"unlabeled": 200}}),
          ("B", [10], {"images": {"unlabeled": 2000}, "seed": 1}),
          ("C", [10], {"images": {"unlabeled": 0}, "method": "SupOnly"})],
         "settings", ["unlabeled=200", "unlabeled=2000", ""]),
        ([*[(name, [10], {"method": name}) for name in "AB"],
          ("C", [10], {"method": "B", "images": {"unlabeled": 2}})],
         "settings", ["", "", "unlabeled=2"]),
        ([("A", [10], {"method": "SupOnly"}),
          ("B", [10], {"method": "SupOnly", "settings": {"conf_thresh": 0.5}, "seed": 1})],
         "seeds", [[0, 1]]),
        ([("A", [10], {"method": "SupOnly"}), ("B", [10], {"method": "FixMatch"})],
         "settings", ["", ""]),
        ([("A", [10], {"method": "SupOnly"}), ("B", [10], {"method": "FixMatch"}),
          ("C", [10], {"method": "FixMatch", "settings": {"conf_thresh": 0.5}})],
         "settings", ["", "conf_thresh=0.3", "conf_thresh=0.5"]),
        ([("A", [10], {}), ("B", [10], {"images": {"val": 9}})],
         "settings", ["val=3", "val=9"]),
    ],
)  # fmt: skip
def test_groups_of_runs(runs, column, expected, fake, rows):
    for name, scores, options in runs:
        fake(name, scores, **options)
    found, remarks = rows(fake.runs)
    assert [row[column] for row in found] == expected and not remarks


def test_folds_with_counted_weights_and_own_roots_are_averaged(fake, rows):
    for name, scores, options in folds("a"):
        for kind in ("labeled", "val", "unlabeled"):
            options[kind] = {"list": options[kind], "root": f"data/{name}"}
        counted = {"criterion": {"class_weights": [1.0, 2.0, *scores]}}
        fake(name, scores, settings=counted, class_weights="auto", **options)
    (row,), remarks = rows(fake.runs)
    assert row["best"]["mean"] == 1.5 and row["settings"] == "" and not remarks


def test_draws_of_folds_are_told_apart_and_paths_are_not(fake, rows, tmp_path):
    """Folds drawn again have the same paths; a Slurm job has absolute paths."""
    for name, scores, options in folds("a"):
        fake(name, scores, folds="first", **options)
        absolute = {kind: tmp_path / options[kind] for kind in ("labeled", "val", "unlabeled")}
        fake(f"b/{name}", scores, folds="first", seed=1, **options | absolute)
        fake(f"c/{name}", scores, folds="second", **options | {"digest": f"{scores}"})
    found, remarks = rows(fake.runs)
    assert [(row["partition"], row["settings"], row["seeds"]) for row in found] == [
        ("mine (first)", "", [0, 1, 0, 1]), ("mine (second)", "", [0, 0])
    ] and not remarks  # fmt: skip


def test_other_folds_of_runs_without_a_digest_are_named(fake, rows):
    for name, scores, options in folds("a"):
        fake(name, scores, **options)
        fake(f"b/{name}", scores, **options | {"digest": f"{scores}"})
    _, remarks = rows(fake.runs)
    words = ", but other images)"
    assert len(remarks) == 2 and all(remark.endswith(words) for remark in remarks)


def test_the_digest_of_a_draw_is_that_of_all_its_folds(toy):
    def digest(fold, **changed):
        for number in (1, 2, 3):
            folder = toy.root / f"fold_{number}"
            folder.mkdir(exist_ok=True)
            for kind in ("labeled", "val"):
                (folder / f"{kind}.txt").write_text(changed.get(kind, f"{kind} {number}\n"))
        lists = {kind: toy.root / fold / f"{kind}.txt" for kind in ("labeled", "val")}
        return folds_digest(Data(name="d", root=".", classes=["a", "b"], **lists))

    first = digest("fold_1")
    assert first == digest("fold_3") and len(first) == 12
    assert len({first, digest("fold_1", val="x\n"), digest("fold_1", labeled="x\n")}) == 3
    (toy.root / "fold_2/val.txt").unlink()
    lists = {kind: toy.root / "fold_1" / f"{kind}.txt" for kind in ("labeled", "val")}
    assert folds_digest(Data(name="d", root=".", classes=["a", "b"], **lists)) is None
    assert digest("fold_1") == first and digest("other") is None


@pytest.mark.parametrize("folder", ["mine", "toy"])  # toy: the name of the dataset
def test_numbers_of_labels_and_steps_of_folds_are_a_range(folder, fake, rows, run):
    for number, (name, scores, options) in enumerate(folds("a")):
        for kind in ("labeled", "val", "unlabeled"):
            options[kind] = options[kind].replace("mine", folder)
        fake(name, scores * (number + 1), epochs=1, images={"labeled": 16 + number}, **options)
    (row,), _ = rows(fake.runs)
    assert (row["partition"], row["labels"], row["steps"]) == (folder, 16, 10)
    fake("other", [10], images={"labeled": 8}, method="SupOnly")
    assert re.search(r"16–17 .* 10–20 ", run(results, fake.runs)[1])


@pytest.mark.parametrize(
    ("difference", "shown"),
    [
        ({"settings": {"crop_size": 65}}, {"crop_size=33", "crop_size=65"}),
        ({"settings": {"method": {"teacher": "ema"}}}, {"", "method.teacher=ema"}),
        ({"settings": {"batch_size": 4, "save_every": 3}}, {"batch_size=2", "batch_size=4"}),
        ({"method": "FixMatch"}, {""}),
        ({"labeled": "splits/toy/half/labeled.txt"}, {""}),
        ({"digest": "other"}, {""}),
    ],
)
def test_runs_that_differ_are_not_averaged(difference, shown, fake, rows):
    for name, scores, options in seeds("a", 3):
        fake(name, scores, **options)
    fake("z", [10, 90], seed=3, **difference)
    found, _ = rows(fake.runs)
    assert sorted(len(row["seeds"]) for row in found) == [1, 3]
    assert {row["settings"] for row in found} == shown


def test_images_that_old_runs_did_not_record_are_compared_by_path(fake, rows):
    for seed, unlabeled in enumerate(("u.txt", "u.txt", "v.txt")):
        path = fake(str(seed), [10], seed=seed, unlabeled=unlabeled) / "starts.jsonl"
        start = json.loads(path.read_text())
        del start["images"]["unlabeled"]
        path.write_text(json.dumps(start) + "\n")
    found, remarks = rows(fake.runs)
    assert [row["seeds"] for row in found] == [[0, 1], [2]] and not remarks
    assert [row["settings"] for row in found] == ["unlabeled=u.txt", "unlabeled=v.txt"]


def test_unfinished_repeated_and_unequal_runs_are_named(fake, run, toy):
    fake("good/0", [10, 20])
    fake("good/1", [10, 30], seed=1, commit="deadbeef")
    fake("good/again", [10, 99])
    fake("good/forced", [10, 40], seed=2, command=["--force"], starts=2)
    fake("half", [10], epochs=2, seed=3, starts=2)
    fake("none", [], epochs=2, seed=4)
    moved = {"data": toy.tree["data"] | {"root": "else/where"}}
    fake("good/moved", [10, 20], settings=moved)
    fake("moved", [10, 50], method="SupOnly", settings=moved)
    fake("stayed", [10, 50], method="SupOnly", seed=1)
    (fake("odd", [10, 20], seed=5) / "metrics.jsonl").write_text('{"epoch": 1}\n')
    (fake("cut", [10, 20], seed=6) / "metrics.jsonl").write_text('{"epoch":')
    out = run(results, fake.runs).output()
    for words in (
        "left out, unfinished: .*half .epoch 1 of 2, started 2 times",
        "left out, unfinished: .*none .epoch 0 of 2",
        r"left out, a repetition: .*good/again .same settings as .*good/0, seed 0\)",
        r"good/moved .same settings as .*0, seed 0, but data.root where instead of data\)",
        r"SupOnly, toy/3: runs of different data.roots: where .seed 0.; data .seed 1.",
        r"toy/3: runs of different commits: c0ffee .seed 0, 2.; deadbeef .seed 1.",
        "good/forced: resumed with --force",
        "not read: .*odd/metrics.jsonl line 1: key 'steps' is missing",
        "not read: .*cut/metrics.jsonl line 1: not JSON",
    ):
        assert re.search(words, out), words
    assert re.search(r"UniMatch +3 +30\.0 ± 10\.0", out)


def test_folders_that_may_not_be_read_are_named(fake, rows, user_error, monkeypatch):
    fake("a", [10])
    scandir, private = os.scandir, str(fake.runs / "private")

    def refusing(path):
        if str(path) == private:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    os.mkdir(private)
    monkeypatch.setattr(os, "scandir", refusing)
    message = f"not read: {private}: Permission denied"
    assert rows(fake.runs)[1] == [message]
    assert f"no starts.jsonl in it or below; {message})" in user_error(results, private)


def test_classes_absent_from_a_fold_are_named(fake, rows):
    for name, scores, options in folds("a"):
        metrics = fake(name, [50 * scores[0], 10], **options) / "metrics.jsonl"
    (lines := json_lines(metrics))[0]["scores"]["model"].update(miou=50.0, miou_present=75.0)
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert rows(fake.runs)[1] == [
        "UniMatch, toy/mine: a class neither in the masks nor in the predictions counts as IoU 0: "
        f"{fake.runs}/a/2 (1 class; mIoU 50.0, of the classes present 75.0)"
    ]
    metrics.write_text(metrics.read_text().replace('"miou_present": 75.0, ', ""))
    assert not rows(fake.runs)[1]


def test_only_cheap_validations_make_no_score(fake, user_error):
    folder = fake("cheap", [10, 20])
    lines = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(lines.replace('"original"', '"center_crop"'))
    assert "never validated in the config's mode" in user_error(results, folder)


def test_places_are_folders_patterns_and_folders_of_runs(fake, rows, user_error, tmp_path):
    for seed in range(3):
        fake(f"m/{seed}", [seed], seed=seed)
    for places in ([fake.runs / "m/0", fake.runs / "m/2"], [f"{fake.runs}/m/[02]"]):
        assert rows(*places)[0][0]["seeds"] == [0, 2]
    assert rows(fake.runs, fake.runs / "m")[0][0]["seeds"] == [0, 1, 2]
    assert "no run directory" in user_error(results, tmp_path / "nowhere")
    (tmp_path / "links").mkdir()
    for name in ("a", "b"):
        (tmp_path / "links" / name).symlink_to(fake.runs / "m")
    (tmp_path / "links" / "above").symlink_to(tmp_path / "links")
    assert rows(tmp_path / "links")[0][0]["seeds"] == [0, 1, 2]


def test_scores_other_than_miou(fake, rows, user_error):
    fake("a", [40, 30])
    assert rows(fake.runs, "--score", "road")[0][0]["best"]["mean"] == 50
    assert rows(fake.runs, "--score", "accuracy")[0][0]["last"]["mean"] == 90
    fake("with volumes", [20], dice=[90.0, 60.0, 80.0], settings={"conf_thresh": 0.5})
    found, remarks = rows(fake.runs, "--score", "dice")
    assert [row["best"]["mean"] for row in found] == [70]
    assert f"left out, has no score 'dice': {fake.runs / 'a'}" in remarks
    shutil.rmtree(fake.runs / "with volumes")
    for score in ("dice", "sea"):
        err = user_error(results, fake.runs, "--score", score)
        assert f"--score {score}" in err and "road" in err


def test_formats_say_the_same_and_names_stay_text(fake, run, toy):
    toy.tree["data"]["name"] = "=x|\\input{y}\x1b[2J"
    for seed in range(2):
        fake(f"a/{seed}", [10, 41.23 + seed], seed=seed)
    fake("b", [10, 50.0], method="My_Method")
    printed = {f: run(results, fake.runs, "--format", f)[1] for f in FORMATS}
    table = list(csv.DictReader(io.StringIO(printed["csv"])))
    assert [row["method"] for row in table] == ["UniMatch", "My_Method"]
    assert table[1]["best_std"] == ""  # of one run
    assert float(table[0]["best_mean"]) == json.loads(printed["json"])["rows"][0]["best"]["mean"]
    for form in ("text", "markdown", "latex"):
        assert "scores on the validation split, in percent" in printed[form]
    facts = {"score": "miou", "split": "validation", "unit": "percent"}
    assert (
        facts.items() <= table[0].items() and facts.items() <= json.loads(printed["json"]).items()
    )
    assert "41.7 ± 0.7" in printed["text"] and "| 41.7 ± 0.7 |" in printed["markdown"]
    assert r"41.7 $\pm$ 0.7" in printed["latex"] and r"My\_Method" in printed["latex"]
    head, rule, *rows = [line for line in printed["markdown"].splitlines() if line[:1] == "|"]
    assert len({line.count("|") for line in (head, rule, *rows)}) == 1 and len(rows) == 2
    assert printed["latex"].count(r"\\") == 3 and "dataset: =x" in printed["text"]
    assert table[0]["dataset"].startswith("'=x") and "\x1b" not in "".join(printed.values())


R50, R101 = {"backbone": "resnet50s"}, {"backbone": "resnet101s"}
UNET = {"network": "unet", "pretrained": "none"}


@pytest.mark.parametrize(
    ("name", "score", "runs", "expected", "remarked"),
    [
        ("pascal/92", "miou", [({}, R101, 321), ({}, R101, 513)], [75.2, None],
         "not those published as pascal/92"),
        ("acdc/7", "dice", [({"val": "valtest.txt"}, UNET, 65)], [89.9], ""),
        ("whu/5%", "changed", [({}, R50, 65), ({"val": "val.txt"}, R50, 65)],
         [80.2, 80.2], "1: its best epoch was chosen on val, but the published 80.2 on test"),
        ("levir/5%", "changed", [({}, R50, 65), ({}, R50 | {"network": "pspnet"}, 65)],
         [80.7, 75.6], "not those published as levir/5%"),
    ],
)  # fmt: skip
def test_published_scores_stand_beside_ours(name, score, runs, expected, remarked, fake, rows):
    """Show scores beside runs of the same network and crop size; name other images and splits."""
    dataset, partition = name.split("/")
    data = {"name": dataset, "root": f"data/{dataset}", "classes": ["a", "changed", "c"],
            "labeled": f"{partition}/labeled.txt", "unlabeled": None,
            "val": "test.txt"}  # fmt: skip
    for number, (more, model, crop) in enumerate(runs):
        settings = {"data": data | more, "model": model, "crop_size": crop}
        if score == "dice":
            settings["evaluation"] = {"volume_pattern": "(.)", "select": "dice"}
        fake(str(number), [70.0], settings=settings, dice=[99.0, 80.0, 90.0], digest=str(number))
    found, remarks = rows(fake.runs, "--published", name, "--score", score)
    assert [row["published"] for row in found] == expected
    assert found[0]["best"]["mean"] == (85 if score == "dice" else 70)
    assert remarked in " ".join(remarks) and bool(remarks) == bool(remarked)
    assert sum("chosen on" in remark for remark in remarks) == (dataset == "whu")
    split = {"pascal": "val", "acdc": None}.get(dataset, "test")  # acdc: of prepared images
    words = f"0: its validation images are not those published as {dataset}/{split}"
    assert any(words in remark for remark in remarks) == (split is not None)


@pytest.mark.parametrize("dataset, method, published", [
    ("pascal", {}, "teacher"),
    ("levir", {"teacher": "self"}, "student"),
])  # fmt: skip
def test_a_published_score_is_shown_for_the_network_that_makes_the_pseudo_labels(
    fake, rows, dataset, method, published
):
    score = next(s for s in read_published() if (s.method, s.dataset) == ("UniMatchV2", dataset))
    data = {"name": score.dataset, "root": "data", "labeled": f"{score.partition}/labeled.txt",
            "unlabeled": "u.txt", "val": "v.txt", "classes": ["other", "changed", "c"]}  # fmt: skip
    model = {"network": "dpt", "backbone": score.backbone}
    settings = {"model": model, "method": method, "data": data}
    if score.crop:
        settings["crop_size"] = score.crop
    fake("a", [80.0], method="UniMatchV2", teacher=[81.0], settings=settings)
    found, _ = rows(fake.runs, "--published", score.name, "--score", score.score)
    assert {row["scored"]: row["published"] for row in found} == {
        "student": None, "teacher": None, published: score.value
    }  # fmt: skip


def test_a_score_that_did_not_select_the_checkpoints_is_named(fake, rows):
    fake("a", [10, 70, 30])
    assert rows(fake.runs)[1] == []
    assert rows(fake.runs, "--score", "accuracy")[1] == [
        "best accuracy: the best of all epochs; best.pth was selected by miou"
    ]


def test_published_scores_without_a_run_are_listed(fake, run, user_error):
    fake("a", [70.0])
    command = (results, fake.runs, "--published")
    code, out, _ = run(*command, "pascal/92")
    assert "published, without a run: pascal/92 CorrMatch resnet101s 76.4 (CorrMatch," in out
    for argv, words in ((["pascal/93"], "pascal/92"), (["acdc/7"], "no published miou")):
        err = user_error(*command, *argv)
        assert argv[0] in err and words in err


def test_published_scores_are_those_of_the_configs():
    """Compare the rows of numbers in the comments of configs with published.yaml."""
    entries = yaml.safe_load(SCORES.read_text())
    ours = {(e["dataset"], tuple(e["values"].values())): tuple(e["values"]) for e in entries}
    assert len(ours) == len(entries)
    theirs = {}
    for path in REPOSITORY.glob("configs/*.yaml"):
        comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
        head = ()
        for before, line in pairwise(comment):
            if re.fullmatch(r"#( +1?/?\d+%?)+", before):
                head = tuple(before[1:].replace("/", "_").split())
            scores = tuple(map(float, re.findall(r" (\d\d\.\d)(?= |$)", line)))
            if head and len(scores) == len(head):
                theirs[path.stem.split("_")[0], scores] = head
    assert len(theirs) > 30 and ours == theirs
    known = {kind.__name__ for kind in METHODS.values()}
    assert {score.method for score in read_published()} <= known


def test_curves_are_drawn(fake, run, toy, tmp_path):
    other = {"model": toy.tree["model"] | {"network": "pspnet"}}
    for labels in (16, 64):
        fake(f"other/{labels}", [10, labels], settings=other, digest=str(labels),
             labeled=f"splits/toy/{labels}/labeled.txt", images={"labeled": labels})  # fmt: skip
        for seed in range(2):
            for method in ("UniMatch", "SupOnly"):
                fake(f"{method}/{labels}/{seed}", [10, labels], method=method, seed=seed,
                     digest=str(labels), labeled=f"splits/toy/{labels}/labeled.txt",
                     images={"labeled": labels, "unlabeled": 100 - labels})  # fmt: skip
    fake("full", [60, 90], method="SupOnly", digest="all", labeled="all/labeled.txt",
         images={"labeled": 100, "unlabeled": 0})  # fmt: skip
    plots = tmp_path / "plots"
    run(results, fake.runs, "--plot", plots).output()
    names = {path.stem for path in plots.iterdir()}
    classes = {name for name in names if name.startswith("classes_toy_")}
    assert names == {"learning", "labels"} | classes and len(list(plots.iterdir())) == 2 * len(
        names
    )
    assert "classes_toy_pspnet_test_resnet_64_labels" in classes and len(classes) == 5
    assert min(Image.open(plots / "labels.png").size) > 300
    text = (plots / "labels.svg").read_text()
    assert all(word in text for word in ("UniMatch", "SupOnly", "full supervision, 100 labels"))
    assert all(f">toy, {name} test_resnet<" in text for name in ("deeplabv3plus", "pspnet"))
    assert "16 labels" in (plots / "learning.svg").read_text()


def test_runs_with_other_classes_are_drawn_apart(fake, run, toy, tmp_path):
    fake("0", [10, 40])
    for name, order in (("1", [2, 0, 1]), ("2", [1, 0, 2])):
        classes = [toy.tree["data"]["classes"][index] for index in order]
        fake(name, [10, 40], method="SupOnly", settings={"data": toy.tree["data"] | {
            "classes": classes, "palette": None}})  # fmt: skip
    run(results, fake.runs, "--plot", tmp_path / "plots").output()
    assert len(list((tmp_path / "plots").glob("classes_*.png"))) == 3


@pytest.mark.parametrize(("score", "expected"), [("miou", [25, 35, 45]), ("dice", [9, 7, 8])])
def test_class_scores_of_the_best_epoch(score, expected, fake):
    fake("0", [10, 40, 30], dice=[9, 7, 8])
    fake("1", [30, 20, 10], seed=1, dice=[9, 7, 8])
    table = collect([str(fake.runs)], score).table.assign(name="UniMatch")
    marks = class_scores(table, "toy", score).axes[0].containers[0]
    assert marks.lines[0].get_xdata().tolist() == expected
    names = [tick.get_text() for tick in marks.lines[0].axes.get_yticklabels()]
    assert names == table.classes[0]


def test_learning_curves_over_seeds():
    """A learning curve covers the epochs that all seeds have validated."""
    seeds = [{1: 10.0, 2: 20.0, 4: 30.0}, {1: 20.0, 2: 40.0, 3: 50.0}]
    row = {"dataset": "d", "network": "n", "partition": "p", "labels": 3, "method": "M",
           "settings": "", "scored": "", "curves": seeds, "panel": "d", "name": "M"}  # fmt: skip
    axis = learning_curves(pd.DataFrame([row]), "mIoU").axes[0]
    assert axis.lines[0].get_xydata().tolist() == [[1, 15], [2, 30]]
    band = axis.collections[0].get_paths()[0].get_extents()
    assert band.y0 == pytest.approx(15 - 50**0.5) and band.y1 == pytest.approx(30 + 200**0.5)


def test_partitions_of_one_size_are_not_joined():
    rows = [
        {"panel": "d", "name": name, "labels": labels, "unlabeled": 9 - labels, "best_mean": 1.0,
         "best_std": 0.1, "method": name, "settings": "", "scored": ""}
        for name, sizes in (("A", (2, 4)), ("B", (2, 2, 4))) for labels in sizes
    ]  # fmt: skip
    one, two = label_curves(pd.DataFrame(rows), "mIoU", "best").axes[0].lines
    assert one.get_linestyle() == "-" and two.get_linestyle() == "None"


@pytest.mark.parametrize("count", [2, 7])
def test_pseudo_label_curves_by_class(count):
    """One row of panels for each class, where a share of no pixels is a gap, or the mean over many,
    in which a class that is never predicted keeps nothing."""
    blank = dict.fromkeys(("ece", "precision")) | {"kept": 50.0} | dict.fromkeys(
        ("bin_pixels", "bin_confidence", "bin_accuracy"), []
    )  # fmt: skip
    seeds = [
        {epoch: PseudoLabels(threshold=0.95, class_kept=[kept] + [20.0] * (count - 1),
                             class_precision=[None, *[right] * (count - 1)], **blank)}
        for epoch, kept, right in ((1, 40.0, 90.0), (2, None, None))
    ]  # fmt: skip
    row = {"method": "M", "settings": "", "scored": "", "name": "M", "pseudo_labels": [
        seeds[0] | seeds[1], seeds[0]], "classes": [str(n) for n in range(count)]}  # fmt: skip
    axes = pseudo_label_curves(pd.DataFrame([row]), "d").axes
    first = 40 if count == 2 else (40 + 20 * 6) / 7
    second = float("nan") if count == 2 else 20 * 6 / 7
    assert len(axes) == (4 if count == 2 else 2)
    assert axes[0].lines[0].get_ydata().tolist() == pytest.approx([first, second], nan_ok=True)
    titles = ["0", "0"] if count == 2 else ["mean over classes", "mean over 0–6 of 7 classes"]
    assert [axis.get_title().split(":")[0] for axis in axes[:2]] == titles
    right = axes[1].lines[0].get_ydata().tolist()
    assert right == pytest.approx([float("nan") if count == 2 else 90, float("nan")], nan_ok=True)


def test_a_real_run(toy, train, rows, run, user_error, tmp_path, capsys):
    train(FixMatch, toy.argv(tmp_path / "runs/0"))
    capsys.readouterr()
    assert "pseudo" not in run(results, tmp_path / "runs", "--format", "csv")[1]
    (row,), remarks = rows(tmp_path / "runs")
    assert not remarks and row["method"] == "FixMatch" and row["labels"] == 3
    history = json_lines(tmp_path / "runs/0/metrics.jsonl")
    assert row["last"]["mean"] == history[-1]["scores"]["model"]["miou"]
    assert all(epoch["step_seconds"] > 0 and epoch["peak_memory"] > 2**20 for epoch in history)
    assert row["steps"] == history[-1]["steps"] and row["peak_memory"] == max(
        epoch["peak_memory"] for epoch in history
    )
    (start,) = json_lines(tmp_path / "runs/0/starts.jsonl")
    hashed = fingerprint(toy.path("labeled").read_bytes())
    assert start["images"]["labeled"] == {"images": hashed.entries, "sha256": hashed.sha256}
    (tmp_path / "runs/0/metrics.jsonl").write_text(json.dumps(history[0]) + "\n")
    err = user_error(results, tmp_path / "runs")
    assert "unfinished" in err and "epoch 1 of 2" in err


def test_a_curve_of_one_epoch_is_a_marker():
    axis = Figure().add_subplot()
    style = {"color": "red", "marker": "o"}
    for curve in ({1: [40.0], 2: [float("nan")]}, {1: [40.0], 2: [50.0]}):
        _plot_epochs(axis, pd.DataFrame(curve), style)
    assert [line.get_marker() for line in axis.lines] == ["o", ""]


def test_folders_of_pictures_are_not_searched(fake, rows):
    fake("a", [10])
    fake("a/pictures/copied", [20])
    fake("a/b", [30], seed=1)
    assert rows(fake.runs)[0][0]["seeds"] == [0, 1]
