"""User errors end before training, with one line and exit code 2."""

import pytest
import torch
from PIL import Image

import evaluate
import predict
from corrmatch import CorrMatch
from engine.run_dir import RunDir
from prevmatch import PrevMatch
from supervised import SupOnly
from tests.conftest import saved
from tests.robustness.fuzzing.verdict import LAUGHS


@pytest.fixture
def training_error(training_error, toy, tmp_path, monkeypatch):
    """Run a method on the toy, which must fail before training; return its error line."""

    def no_training(*_, **__):
        raise AssertionError("training started")

    monkeypatch.setattr(RunDir, "open", no_training)

    def run(*more, kind=CorrMatch, save_path=None):
        return training_error(kind, toy.argv(save_path or tmp_path / "run", *more))

    return run


def contains(line, *parts):
    for part in parts:
        assert str(part) in line, f"{part!r} is not in {line!r}"


SETTINGS = {
    "crop_sise=33": ["unknown key 'crop_sise'", "did you mean 'crop_size'"],
    "optimizer.momentun=0.9": ["unknown key 'optimizer.momentun'", "did you mean 'momentum'"],
    "lr=0.1": ["unknown key 'lr'; did you mean 'optimizer.lr'?"],
    "optimizer.backbone=x": ["'optimizer.backbone'; did you mean 'model.backbone'?"],
    "evaluation.scale=[1]": ["'evaluation.scale'; did you mean 'scales' or 'data.scale'?"],
    "name=x": ["did you mean 'data.name' or 'criterion.name' or 'optimizer.name'?"],
    "thresh_init=0.5": ["unknown key 'thresh_init'; known: data, model"],
    "method.thresh_int=0.5": ["unknown key 'method.thresh_int'", "did you mean 'thresh_init'"],
    "epochs=many": ["epochs", "integer", "found 'many'"],
    "data.palette=[[0,0,0]]": ["data", "1 colour for 3 classes"],
    "model.network=segnet": ["model.network", "deeplabv3plus", "found 'segnet'"],
    "model.backbone=resnet50x": ["model.backbone", "resnet50x", "resnet50"],
    "model.backbone=vit_tiny_patch16_224": ["model.backbone", "vit_tiny", "strides 4"],
    "model.multi_grid=true": ["model.multi_grid", "test_resnet"],
    "log.trackers=[mlflow]": ["log.trackers.0", "'tensorboard' or 'wandb'"],
    "crop_size=32": ["crop_size", "found 32", "use 33"],
    "batch_size=1": ["batch_size", "1 image", "needs 2"],
    "micro_batch=3": ["micro_batch", "found 3", "divide"],
    "model.pretrained=file": ["pretrained/test_resnet.pth", "not found", "model.pretrained"],
    "model.pretrained=no/such.pth": ["no/such.pth", "not found"],
    "model.pretrained=README.mk": ["not found; did you mean 'README.md'? Fix: put the file"],
    "epochs": ["--set epochs", "key=value"],
    "epochs=[": ["--set epochs=[", "not a YAML value"],
    "data={geometry: rotate_resize, scale: [0.8, 1.2]}": ["data: ", "scale", "rotate_resize"],
    "evaluation.volume_pattern='('": ["evaluation.volume_pattern", "regular expression"],
    "evaluation.volume_pattern='v'": ["evaluation.volume_pattern", "group"],
    # found by fuzzing: unprintable names, errors inside the YAML library
    "evaluation.volume_pattern='(a{99999999999})'": ["evaluation.volume_pattern", "too large"],
    "optimizer.lr=.nan": ["optimizer.lr", "finite number", "found nan"],
    "epochs=0x" + 5000 * "f": ["epochs", "found an integer of thousands of digits"],
    r'data.classes=["a\nb", b, c]': ["data.classes.0", "printable", r"found 'a\nb'"],
    "a\nb=1": [r"unknown key 'a\nb'"],
    "epochs=!!int ''": ["not a YAML value"],
    "epochs=" + 3000 * "[": ["not a YAML value"],
    r'data.labeled="a\0b"': ["data.labeled: a path cannot hold a zero byte", r"a\x00b"],
    r'data.labeled="\ud800"': ["data.labeled", "surrogates not allowed"],
    r'data.root="a\0b"': ["data.root: a path cannot hold a zero byte"],
    "data.labeled={images: %s}" % (300 * "x"): ["xxx", "no such folder"],
    "data.unlabeled={images: %s}" % (300 * "x"): ["xxx", "no such folder"],
    "model.pretrained=" + 300 * "x": ["xxx", "not found"],
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_config_values(setting, training_error):
    contains(training_error("--set", setting), *SETTINGS[setting])


def test_an_option_and_another_value_in_set(training_error):
    line = training_error("--labeled-id-path", "a.txt", "--set", "data.labeled=b.txt")
    contains(line, "--set data.labeled=b.txt: data.labeled has another value")


def test_an_empty_path_is_no_folder(training_error):
    contains(training_error("--save-path", ""), "--save-path: expected a path, found an empty text")


def test_section_that_contains_itself(training_error):
    line = training_error("--set", "method=&a {b: *a}", "method=&a {b: *a}")
    contains(line, "'b' contains itself")


@pytest.mark.parametrize(
    "text, parts",
    [
        ("epochs: 1\nepochs: 2\n", ["line 2", "'epochs' occurs twice"]),
        ("a: 1\nb: [1, 2\n", ["line 3 column 1: not valid YAML (expected ',' or ']'"]),
        ("data: &d {}\nlog:\n  <<: *d\n", ["line 3", "merge keys (<<) are not supported"]),
        ("- a\n", ["expected keys and values, found list"]),
        ("", ["expected keys and values"]),
        ("base: toy.yaml\n", ["base: leads back to this file; expected no cycle"]),
        ("base: ''\n", ["base: ", "is a folder; expected a config file"]),
        ("base: 3\n", ["base: expected the path", "found 3"]),
        ("base: none.yaml\n", ["base: ", "none.yaml", "no such config"]),
        ("epochs: 2\n", ["key 'data' is missing"]),
        ("batchsize: 2\n", ["unknown key 'batchsize'; did you mean 'batch_size'?"]),
        (
            "a: !!python/object/apply:os.getcwd []\n",
            ["line 1 column 4", "could not determine a"],
        ),
        ("a: !!int ''\n", ["not valid YAML (IndexError"]),
        (3000 * "- ", ["not valid YAML (RecursionError"]),
        (f"base: {300 * 'x'}\n", ["base: ", "File name too long"]),
        (LAUGHS + "base: *a29\n", ["base: expected the path", "found [["]),
    ],
)
def test_config_files(text, parts, training_error, toy):
    toy.config.write_text(text)
    contains(training_error(), "toy.yaml", *parts)


@pytest.mark.parametrize("target, problem", [("gone", "no such config"), ("toy.yaml", "symbolic")])
def test_missing_config(target, problem, training_error, toy):
    toy.config.unlink()
    contains(training_error(), "toy.yaml", "no such config file")
    toy.config.symlink_to(target)
    contains(training_error(), "toy.yaml", problem)


LINES = {
    "missing file": (["images/none.jpg masks/l0.png"], ["line 1", "images/none.jpg", "no such"]),
    "missing mask": (["images/l0.jpg masks/none.png"], ["line 1", "masks/none.png", "no such"]),
    "no mask": (["images/l0.jpg masks/l0.png", "images/l1.jpg"], ["line 2", "l1.jpg' has no mask"]),
    "mask None": (["images/l0.jpg None"], ["line 1", "has no mask"]),
    "twice": (["images/l0.jpg masks/l0.png"] * 3, ["line 2", "line 1 already", "(and 1 other)"]),
    "spaces": (["images/a b.jpg masks/a b.png"], ["line 1", "4 parts", "tab"]),
    "empty": ([], ["the split file is empty"]),
    "NUL": (["a\0b/l0.jpg masks/l0.png"], ["zero bytes"]),
    "escapes": (["images/l0\x1b.jpg masks/l0.png"], [r"l0\x1b.jpg: no such file"]),
    "unlabelled too": (
        ["images/u2.jpg masks/l0.png"],
        ["unlabeled.txt line 3", "/labeled.txt line 1"],
    ),
}


@pytest.mark.parametrize("case", LINES)
def test_labelled_lists(case, training_error, toy):
    lines, parts = LINES[case]
    toy.write_list("labeled", lines)
    contains(training_error(), "labeled.txt", *parts)


def test_validation_image_in_training(training_error, toy):
    toy.write_list("val", ["images/v0.jpg masks/v0.png", "images/l1.jpg masks/l1.png"])
    contains(training_error(), "val.txt line 2", "images/l1.jpg", "labeled.txt line 2")


@pytest.mark.parametrize("option, path, fix", [
    ("--labeled-id-path", "no/list.txt", ""),
    ("--unlabeled-id-path", "no/list.txt", ""),
    ("--labeled-id-path", "splits/pascal/92/labeled.txt", "tools.splits fetch pascal/92\n"),
])  # fmt: skip
def test_missing_list(option, path, fix, training_error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    contains(training_error(option, path), f"{path}: no such split file", fix)


def test_list_that_is_not_text(training_error, toy):
    toy.path("labeled").write_bytes(b"\xff\xfe\x00")
    contains(training_error(), "labeled.txt", "cannot be read as text")


def test_no_list_at_all(training_error, toy):
    del toy.tree["data"]["unlabeled"]
    toy.write_config()
    draw = "python -m tools.splits make --config CONFIG --labeled 1/8 --out FOLDER"
    contains(training_error(), "--unlabeled-id-path", "data.unlabeled", draw)


def test_mask_in_colour(training_error, toy):
    Image.new("RGB", (52, 44)).save(toy.root / "masks/l1.png")
    contains(training_error(), "labeled.txt line 2", "masks/l1.png", "mode RGB", "class indices")


def test_colours_of_a_mask_that_has_none(training_error, toy):
    Image.new("I;16", (52, 44), 300).save(toy.root / "masks/l1.png")
    colours = "data.label_map={'0,0,0': sky, '1,1,1': tree, '2,2,2': road, other: ignore}"
    line = training_error("--set", colours, "data.check_samples=8")
    contains(line, "masks/l1.png", "has no colours", "data.label_map names colours")


@pytest.mark.parametrize("kind", ["l", "v"])
def test_mask_value_that_is_no_class(kind, training_error, toy):
    with Image.open(toy.root / f"masks/{kind}2.png") as mask:
        mask = mask.copy()
    mask.putpixel((3, 3), 7)
    mask.save(toy.root / f"masks/{kind}2.png")
    contains(training_error(), "line 3", f"masks/{kind}2.png", "mask value 7", "0 to 2 or 255")
    line = training_error("--set", "data.reduce_zero_label=true")
    contains(line, "mask value 7", "0 to 3 or 255", "reduce_zero_label is on")


@pytest.mark.parametrize("value", [-1, 65536])
def test_mask_value_that_no_class_can_have(value, training_error, toy):
    Image.new("I", (52, 44), value).save(toy.root / "masks/l1.tif")
    toy.write_list("labeled", ["images/l1.jpg masks/l1.tif"])
    contains(training_error(), f"masks/l1.tif: mask values {value} to {value}, expected 0 to 65535")


@pytest.mark.parametrize("share", [0, 0.2, 0.7])
@pytest.mark.parametrize("file", ["images/u3.jpg", "images/l2.jpg", "masks/v0.png"])
def test_corrupt_files(file, share, training_error, toy):
    path = toy.root / file
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    contains(training_error(), file, "not a readable image")


def test_gpu_demanded_where_there_is_none(training_error, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    contains(training_error("--device", "cuda"), "--device cuda", "found 0 GPUs")


def test_unwritable_save_path(training_error, toy):
    contains(training_error(save_path=toy.config / "run"), "--save-path", "cannot be written")
    contains(training_error(save_path=300 * "x"), "--save-path", "cannot be written (", "too long")
    contains(training_error(save_path=2000 * "x/"), "--save-path", "cannot be written")


@pytest.mark.parametrize("name", ["none.pth", 300 * "x"], ids=["missing", "too long"])
def test_missing_checkpoint(name, training_error):
    contains(training_error("--resume", name), f"--resume {name}", "no such checkpoint")


@pytest.fixture
def trained(toy, train, tmp_path):
    train(SupOnly, toy.change(epochs=1).argv(tmp_path / "trained"))
    return tmp_path / "trained/latest.pth"


def test_checkpoint_of_another_run(trained, training_error, toy):
    contains(training_error("--resume", str(trained)), "latest.pth", "SupOnly", "CorrMatch")
    line = training_error("--resume", str(trained), "--set", "model.channels=4", kind=SupOnly)
    contains(line, "latest.pth", "is finished", "model.channels (8 -> 4)", "--save-path")
    more = ["--set", "model.channels=4", "epochs=2", "--force"]
    line = training_error("--resume", str(trained), *more, kind=SupOnly)
    contains(line, "latest.pth", "of another shape", "[8,", "[4,")
    line = training_error("--resume", str(trained), "--set", "optimizer.lr=0.5", kind=SupOnly)
    contains(line, "latest.pth", "optimizer.lr (0.01 -> 0.5)", "--save-path")
    torch.save(saved(trained)["method"], trained)
    line = training_error("--resume", str(trained), kind=SupOnly)
    contains(line, "not a checkpoint of this project", "name a run's latest.pth")


PARTS = {
    "epoch": [None, -1, 1.5, torch.ones(())],
    "done": [-1],
    "best": [None, {"model": None}, {"model": {"score": "high", "epoch": 1}}],
    "history": [{}, [torch.ones(3)]],
    "means": [{}, *({"sums": {"loss": odd}, "count": 1} for odd in (None, torch.ones(3)))],
    "scaler": [{}, {"scale": 0.0}],
    "config": [None, {"epochs": torch.ones(())}],
    "name": [3],
    "images": [3, {}, {"val": {"images": 3}}],
    "epoch_length": [0, "x"],
    "method": [None, torch.ones(()), {"model.classifier.bias": None}, {3: torch.ones(3)}],
    "optimizer": [None, {}, {"state": 3}, {"state": {0: {"momentum_buffer": torch.ones(1)}}}],
}


def test_checkpoint_with_odd_contents(trained, training_error):
    whole = saved(trained)
    with pytest.raises(AssertionError, match="training started"):  # unchanged, it is valid
        training_error("--resume", str(trained), kind=SupOnly)
    for part, values in PARTS.items():
        for value in values:
            torch.save(whole | {part: value}, trained)
            contains(training_error("--resume", str(trained), kind=SupOnly), "trained/latest.pth")
    bias = {"model.classifier.bias": torch.ones(3) * 1j}
    torch.save(whole | {"method": whole["method"] | bias}, trained)
    contains(
        training_error("--resume", str(trained), kind=SupOnly), "classifier.bias torch.complex64"
    )


@pytest.fixture
def with_previous(toy, train, tmp_path):
    train(PrevMatch, toy.change(epochs=1).argv(tmp_path / "trained"))
    return tmp_path / "trained/latest.pth"


def test_checkpoint_with_odd_previous_models(with_previous, training_error):
    latest, whole = with_previous, saved(with_previous)
    for odd in (None, 3, {"previous": 3}):
        torch.save(whole | {"method": whole["method"] | {"_extra_state": odd}}, latest)
        contains(training_error("--resume", str(latest), kind=PrevMatch), "trained/latest.pth")


@pytest.mark.parametrize("module", [evaluate, predict])
def test_evaluate_and_predict(module, trained, user_error, toy, tmp_path):
    empty, argv = tmp_path / "empty", ["--config", toy.config, "--checkpoint", trained]
    empty.mkdir()
    more = [] if module is evaluate else ["--images", toy.root / "images", "--save-path", tmp_path]
    contains(user_error(module, *argv, *more, "--which", "teacher"), "'teacher'", "no weights")
    if module is evaluate:
        contains(user_error(evaluate, *argv, "--split", "test"), "data.test")
        contains(user_error(evaluate, *argv, "--json", toy.root), "--json", "is not a report")
    else:
        contains(user_error(predict, *argv, *more, "--images", empty), "no images")


def test_sizes_are_compared_beyond_what_is_decoded(toy, training_error):
    Image.new("L", (44, 52)).save(toy.root / "masks/l2.png")
    line = training_error("--set", "data.check_samples=0")
    contains(line, "labeled.txt line 3", "masks/l2.png", "44x52", "52x44. Fix: turn one of them by")
