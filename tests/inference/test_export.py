"""export.py, tools.publish, and --checkpoint in all its forms."""

import hashlib
import json
import math
import re

import numpy as np
import pytest
import tifffile
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from timm.models import VisionTransformer

import export
import predict
from dataset.tiff import GDAL_NODATA_TAG
from inference import Segmenter
from inference.predictor import logits_of
from model.build import network_from_config
from model.checkpoint import load
from model.deploy import from_torchscript
from model.dinov2 import _resample_for_any_size, as_published, resample_positions
from model.files import find_checkpoint
from model.trained import load_trained
from tests.conftest import REPOSITORY, write_sample
from tools import publish
from util.config.loading import load_config
from util.errors import UserError

CPU = torch.device("cpu")
VIT = {"network": "dpt", "backbone": "test_vit", "pretrained": "none"}
UNET = {"network": "unet", "widths": [4, 8], "dropout": [0, 0], "pretrained": "none"}
CNN = {"backbone": "test_resnet", "channels": 8, "aspp_rates": [1, 2, 3], "pretrained": "none"}
TF_CNN = {**CNN, "backbone": "tf_mobilenetv3_small_minimal_100"}
"""A CNN whose padding depends on the size of the image."""
PSP = {"network": "pspnet", "backbone": "test_resnet", "pretrained": "none"}


@pytest.fixture
def random_run(toy, tmp_path):
    """Return a function that makes a folder with a config and random weights."""

    def make(model, **data):
        toy.tree["model"] = model
        toy.tree["crop_size"] = 48
        toy.tree["data"] |= data
        folder = tmp_path / "random"
        folder.mkdir()
        (folder / "config.yaml").write_text(yaml.safe_dump(toy.tree))
        torch.manual_seed(0)
        config = load_config(folder / "config.yaml")
        network = network_from_config(config.model, config.data)
        torch.save({"model": network.state_dict()}, folder / "best.pth")
        return folder

    return make


def export_argv(folder, form, name, *more):
    return ["--checkpoint", folder, "--format", form, "--out", folder / name, *more]


def exported(run, folder, form, name, *more):
    """Return the path of an export, which names no file of this machine."""
    out = folder / name
    output = run(export, *export_argv(folder, form, name, *more)).output()
    assert all(word in output for word in ("best.pth", "written"))
    difference = re.search(r"largest difference of probabilities (\S+),", output)
    assert difference and float(difference[1]) < 1e-4
    content = out.read_bytes()
    assert str(REPOSITORY).encode() not in content and b"debug_pkl" not in content
    assert form != "onnx" or b".py" not in content
    return out


@pytest.mark.parametrize(
    "model", [CNN, TF_CNN, VIT, UNET, PSP], ids=["cnn", "tf", "vit", "unet", "psp"]
)
def test_torchscript(model, random_run, run):
    out = exported(run, random_run(model), "torchscript", "m.pt")
    extra = {"metadata.json": ""}
    loaded = torch.jit.load(out, _extra_files=extra)
    facts = {k: json.loads(v) for k, v in json.loads(extra["metadata.json"]).items()}
    assert facts["classes"] == ["sky", "tree", "road"] and len(facts["palette"]) == 3
    image = torch.rand(3, 3, 57, 40) * 255
    logits = loaded(image)
    assert logits.shape == (3, 3, 57, 40)
    moved = loaded.double()(image.double())  # the normalisation moves, too
    assert moved.dtype == torch.float64 and torch.allclose(moved.float(), logits, atol=1e-2)


def test_a_network_of_pairs(random_run, run, toy):
    write_sample(toy.root, "later", (50, 38))
    toy.write_list("val", ["images/v0.jpg images/later.jpg masks/v0.png"])
    out = exported(run, random_run(CNN, pair="column"), "torchscript", "m.pt")
    loaded = torch.jit.load(out)
    x = torch.rand(2, 6, 57, 40) * 255
    assert loaded(x).shape == (2, 3, 57, 40)
    swapped = loaded(torch.cat([x[:, 3:], x[:, :3]], 1))
    torch.testing.assert_close(swapped, loaded(x), msg="the difference of a pair is symmetric")


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_scales_are_not_exported(scale, random_run, run, toy):
    toy.tree["evaluation"] = {"scales": [scale]}
    output = run(export, *export_argv(random_run(UNET), "safetensors", "m.safetensors")).output()
    assert ("predict with: original, scales 0.5; the export" in output) == (scale == 0.5)


@pytest.mark.parametrize("model", [CNN, VIT, UNET], ids=["cnn", "vit", "unet"])
def test_onnx(model, random_run, run):
    pytest.importorskip("onnx"), pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    outside = ["--outside", "normalisation"] if model is VIT else []
    out = exported(run, random_run(model), "onnx", "m.onnx", *outside)
    session = runtime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == ["sky", "tree", "road"]
    assert json.loads(facts["inside"]) == (
        ["resizing"] if outside else ["normalisation", "resizing"]
    )
    assert ("values of the file" in facts["input"]) == (not outside)
    assert ("normalised" in facts["input"]) == bool(outside)
    (logits,) = session.run(None, {"image": np.zeros((1, 3, 41, 77), np.float32)})
    assert logits.shape == (1, 3, 41, 77)


def test_grey_bands_outside_and_one_size(random_run, run, user_error, tmp_path):
    """Scale 16-bit bands inside the export, then leave all steps to the caller, at one size."""
    values = np.random.default_rng(0).integers(0, 4096, (44, 52), dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    folder = random_run(VIT, bands="grey", image_range=[100, 4095])
    named = ["--images", tmp_path / "deep.png"]
    whole = torch.jit.load(exported(run, folder, "torchscript", "a.pt", *named))
    outside = ["--outside", "normalisation", "resizing"]
    bare = torch.jit.load(exported(run, folder, "torchscript", "b.pt", *named, *outside))
    config = load_config(folder / "config.yaml")
    network = load_trained(config, folder / "best.pth", "model", CPU)
    with torch.no_grad():
        for shape in ((1, 1, 48, 64), (1, 1, 57, 40)):
            unit = torch.rand(shape)  # as grey bands have mean 0 and deviation 1
            torch.testing.assert_close(whole(100 + 3995 * unit), logits_of(network, unit))
        unit = torch.rand(1, 1, 48, 64)
        torch.testing.assert_close(bare(unit), network(unit))
    exported(run, folder, "torchscript", "c.pt", *named, *outside, "--size", 48, 64)
    argv = export_argv(folder, "torchscript", "d.pt", *named, *outside, "--size", 50, 64)
    assert "--size: found [50, 64], expected multiples of 16 pixels" in user_error(export, *argv)


def test_resized_and_windowed_evaluation(random_run, run):
    folder = random_run(UNET)
    x, found = 255 * torch.rand(1, 3, 57, 40), {}
    for mode in ("resize", "sliding_window"):
        setting = ["--set", f"evaluation.mode={mode}"]
        network = torch.jit.load(exported(run, folder, "torchscript", f"{mode}.pt", *setting))
        found[mode] = network(x)
    assert not torch.allclose(*found.values()), "only one of them resizes to a square"
    more = ["--outside", "resizing", "--set", "evaluation.mode=resize"]
    path, extra = exported(run, folder, "torchscript", "b.pt", *more), {"metadata.json": ""}
    bare = torch.jit.load(path, _extra_files=extra)
    side = json.loads(json.loads(extra["metadata.json"])["square"])
    logits = bare(F.interpolate(x, (side, side), mode="bilinear"))
    torch.testing.assert_close(
        F.interpolate(logits, (57, 40), mode="bilinear"), found["resize"], atol=1e-4, rtol=1e-4
    )


def test_a_wrong_export_is_not_written(random_run, run, monkeypatch):
    def broken(x):
        raise RuntimeError("index out of bounds")

    folder = random_run(CNN)
    for loaded, words in (
        (lambda x: -x, "was not written"),
        (lambda x: math.nan * x, "returns NaN or infinity"),
        (broken, "fails on images 1x3x38x50: index out of bounds"),
    ):
        monkeypatch.setattr("inference.exporting.from_torchscript", lambda _, it=loaded: it)
        code, output, err = run(export, *export_argv(folder, "torchscript", "m.pt"))
        assert code == 1 and words in output + err
        assert {p.name for p in folder.iterdir()} == {"best.pth", "config.yaml"}


def test_pixels_without_data_are_not_compared(random_run, run, monkeypatch, tmp_path):
    values = np.random.default_rng(0).integers(1, 256, (64, 64, 3), dtype=np.uint8)
    for name, rows in (("a", 63), ("empty", 64)):
        values[:rows] = 0
        tag = (GDAL_NODATA_TAG, "s", 0, "0", True)
        tifffile.imwrite(tmp_path / f"{name}.tif", values, photometric="rgb", extratags=[tag])
    folder = random_run(CNN)
    for place, (is_wrong_at, code) in enumerate(((0, 0), (1, 1))):

        def load_wrong(content, is_wrong_at=is_wrong_at):
            right = from_torchscript(content)
            return lambda x: right(x) * torch.where((x.sum(1) > 0) == is_wrong_at, -1, 1)[:, None]

        monkeypatch.setattr("inference.exporting.from_torchscript", load_wrong)
        argv = export_argv(folder, "torchscript", f"{place}.pt")
        found, output, err = run(export, *argv, "--images", tmp_path / "a.tif")
        assert found == code, output + err
    err = run(export, *argv, "--images", tmp_path / "empty.tif").mistake()
    assert "empty.tif: no pixel has data" in err
    extra = {"metadata.json": ""}
    torch.jit.load(folder / "0.pt", _extra_files=extra)
    assert "the ignore index is 255" in json.loads(extra["metadata.json"])["nodata"]


def test_mistakes_are_one_line(random_run, user_error, monkeypatch):
    folder = random_run(CNN)
    for argv, words in (
        (["torchscript", "best.pth"], "exists already"),
        (["torchscript", "no/m.pt"], "does not exist"),
        (["safetensors", "m.pt"], "ends in .safetensors"),
        (["safetensors", "m.safetensors", "--size", 8, 8], "do not apply"),
        (["torchscript", "m.pt", "--images", "none.jpg"], "none.jpg: no such"),
        (["torchscript", "m.pt", "--set", "data.val=no.txt"], "no such split file; or name images"),
    ):
        assert words in user_error(export, *export_argv(folder, *argv))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    error = user_error(export, *export_argv(folder, "onnx", "m.onnx"))
    assert "needs onnx, onnxscript, onnxruntime. Fix: pip install -r" in error


@pytest.mark.parametrize("rows, columns", [(5, 7), (36, 37), (57, 40), (1, 1), (37, 37)])
def test_positions_of_exports_are_those_of_training(rows, columns):
    table = torch.randn(1, 1 + 37 * 37, 6)
    found = _resample_for_any_size(table, rows, columns)
    torch.testing.assert_close(found, resample_positions(table, rows, columns), atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_traced_dinov2_takes_other_sizes():
    shape = {"img_size": 28, "patch_size": 14, "embed_dim": 8, "depth": 1, "num_heads": 1}
    vit = as_published(VisionTransformer(**shape, dynamic_img_size=True, num_classes=0)).eval()
    torch.nn.init.normal_(vit.pos_embed)
    example = {"forward_features": torch.zeros(1, 3, 42, 56)}
    traced = torch.jit.trace_module(vit, example, check_trace=False)
    assert 'Device = prim::Constant[value="cpu"]' not in str(traced.forward_features.inlined_graph)
    for size in ((42, 56), (28, 28), (70, 14)):
        image = torch.randn(1, 3, *size)
        torch.testing.assert_close(
            traced.forward_features(image), vit.forward_features(image), atol=1e-4, rtol=0
        )


def test_a_published_run(trained, shared_run, toy, run, user_error, tmp_path):
    out = tmp_path / "published"
    argv = [trained, "--out", out, "--license", "mit"]
    assert "hf upload OWNER/NAME" in run(publish, *argv).output()
    names = {"README.md", "config.yaml", "curves.png", "metrics.jsonl", "model.safetensors"}
    assert {p.name for p in out.iterdir()} == names
    assert (out / "metrics.jsonl").read_bytes() == (trained / "metrics.jsonl").read_bytes()
    assert min(Image.open(out / "curves.png").size) > 200
    card = (out / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["license"] == "mit"
    weights = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    labeled = hashlib.sha256("".join(sorted(toy.path("labeled").open())).encode()).hexdigest()
    assert f"SHA-256 of the file `{weights}`" in card and f"| labeled | 3 | `{labeled}` |" in card
    logged = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    assert f"| {logged['scores']['model']['miou']:.2f} |" in card and "| 2 | road |" in card
    assert "intervals over images: they cover the choice of images" in card
    for file in out.iterdir():
        for folder in (tmp_path, shared_run):
            assert str(folder).encode() not in file.read_bytes(), "a path of this machine"
    own, theirs = load(trained / "best.pth")["method"], load(out / "model.safetensors")["model"]
    assert theirs and all(torch.equal(own[f"model.{name}"], theirs[name]) for name in theirs)
    for name in "abcd":  # the same file, whose header safetensors orders at random
        run(publish, trained, "--out", tmp_path / name, "--license", "mit")
        again = (tmp_path / name / "model.safetensors").read_bytes()
        assert hashlib.sha256(again).hexdigest() == weights
    config = yaml.safe_load((trained / "config.yaml").read_text())
    (trained / "config.yaml").write_text(yaml.dump(config | {"conf_thresh": 0.5}))
    run(publish, trained, "--out", tmp_path / "e", "--license", "mit")
    (line,), (other,) = (
        re.findall(r"SHA-256 of the file `(\w+)`.* `(\w+)`", (folder / "README.md").read_text())
        for folder in (out, tmp_path / "e")
    )
    assert line[0] != other[0] and line[1] == other[1], "only the file has another config"
    assert "exists already" in user_error(publish, *argv)
    for words, *bad in (
        (". Fix: name the --save-path", tmp_path),
        ("no validation of 'x'", trained, "--which", "x"),
    ):
        assert words in user_error(publish, *bad, "--out", tmp_path / "bad", "--license", "mit")


def test_the_epoch_on_a_card_is_that_of_the_weights(trained, run, tmp_path):
    """Scores before a resume from another folder, or with --force, are not those of best.pth."""
    own = json.loads((log := trained / "metrics.jsonl").read_text())
    better = json.loads(json.dumps(own | {"epoch": 0}).replace('"miou": ', '"miou": 9'))
    argv = [trained, "--license", "mit", "--out"]
    log.write_text("".join(json.dumps(epoch) + "\n" for epoch in (better, own)))
    run(publish, *argv, tmp_path / "a").output()
    card = (tmp_path / "a/README.md").read_text()
    assert "after epoch 1 of 1" in card and f"| {own['scores']['model']['miou']:.2f} |" in card
    log.write_text(json.dumps(better) + "\n")
    err = run(publish, *argv, tmp_path / "b").mistake()
    assert "best.pth: metrics.jsonl has no comparable scores" in err


def test_the_score_that_chose_the_epoch_is_on_the_card(trained, run, tmp_path):
    """A card also shows the Dice of volumes, and the test-time augmentation."""
    epoch = json.loads((log := trained / "metrics.jsonl").read_text())
    epoch["scores"]["model"] |= {"miou": 40.0, "miou_present": 60.0, "dice": [99.0, 70.0, 81.0]}
    log.write_text(json.dumps(epoch) + "\n")
    starts = trained / "starts.jsonl"
    starts.write_text(
        starts.read_text()
        .replace('"command": [', '"command": ["--force", ')
        .replace('"first_step": 0', '"first_step": 1')
    )
    tree = yaml.safe_load((path := trained / "config.yaml").read_text())
    more = {"select": "dice", "volume_pattern": "(v)", "flip": True, "scales": [0.5, 1.0]}
    tree["evaluation"] |= more
    path.write_text(yaml.dump(tree))
    code, _, err = run(publish, trained, "--out", tmp_path / "a", "--license", "mit")
    card = (tmp_path / "a/README.md").read_text()
    assert code == 0 and "chose the epoch (by mean Dice)" in card, err
    assert "prediction mode: original, mirrored too, scales 0.5, 1." in card
    assert "The training was resumed with --force, so its config may have" in card
    assert "intervals over volumes: they cover the choice of volumes" in card
    assert re.search(r"\| mIoU .* mean Dice .*\n.*\n.* \| 75\.50 \|\n", card)
    assert re.search(r"\| mIoU of the classes present .*\n.*\n\| 40\.00 .* 60\.00 ", card)
    assert re.search(r"\| IoU .*volume Dice \|\n.*\n.* 99\.00 \|\n.* 70\.00 \|\n.* 81\.00 \|", card)


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("--save-path=/home/me/run", "--save-path=run"),
        ("data.val={images: /home/me/x, masks: y}", "data.val={images: x, masks: y}"),
        ("a=['/home/me/a.txt', \"/home/me/b c.txt\"]", "a=['a.txt', \"b c.txt\"]"),
        ("model.pretrained='/home/me/w.pth'", "model.pretrained='w.pth'"),
        ("/home/me/unimatch.py", "unimatch.py"),
        ("--save-path=/home/o'neil, me/@x", "--save-path=@x"),
        ("runs/mine", "runs/mine"),
        ("pattern=(.*)/slice", "pattern=(.*)/slice"),
        ("pattern='/(.*)/slice'", "pattern='/(.*)/slice'"),
    ],
)  # fmt: skip
def test_paths_of_a_published_command(argument, shown):
    assert publish.shortened(argument) == shown


def test_every_form_of_a_checkpoint_predicts_the_same(trained, toy, run, tmp_path, monkeypatch):
    (tmp_path / "alone").mkdir()
    alone = exported(run, trained, "safetensors", "../alone/weights.safetensors")
    run(publish, trained, "--out", tmp_path / "p", "--license", "mit").output()
    revisions = []

    def download(name, revision, **_):
        revisions.append((name, revision))
        return str(tmp_path / "p")

    monkeypatch.setattr("model.hub.use_cache_if_offline", lambda: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    image, masks, probabilities = toy.root / "images/l0.jpg", {}, []
    for form in (trained / "best.pth", trained, alone, tmp_path / "p", "hf:owner/name@v1"):
        argv = ["--images", image, "--save-path", tmp_path / f"masks{len(masks)}"]
        output = run(predict, "--checkpoint", form, *argv).output()
        assert (f"checkpoint: {trained / 'best.pth'}" in output) == (form == trained)
        masks[form] = np.array(Image.open(argv[-1] / "masks/l0.png")).tobytes()
        segmentation = Segmenter.load(form, device="cpu").predict(image)
        assert segmentation.mask.tobytes() == masks[form]
        assert segmentation.classes == ["sky", "tree", "road"]
        probabilities.append(segmentation.probabilities.tobytes())
    assert len(masks) == 5 and len(set(masks.values())) == len(set(probabilities)) == 1
    assert revisions == 2 * [("owner/name", "v1")]
    for words, code in (("flip", 0), ("flop", 2)):
        argv = ["--images", image, "--save-path", tmp_path / f"masks_{words}", "--tta", words]
        found, _, err = run(predict, "--checkpoint", alone, *argv)
        assert found == code and ("expected flip or scales" in err) == (code == 2)
    made = json.loads((tmp_path / "masks_flip/made_by.json").read_text())
    assert made["config"]["evaluation"]["flip"] is True


def test_missing_checkpoints(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.get_session", offline)
    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for given, words in (
        ("hf:owner", "expected hf:OWNER/NAME"),
        ("hf:owner/name", "the hub cannot be reached"),
        (tmp_path, "neither best.pth of a run"),
    ):
        with pytest.raises(UserError, match=f"^RUN {given}: .*{words}"):
            find_checkpoint(type(tmp_path)(given), None, "RUN")
    (tmp_path / "x.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="x.safetensors: not a readable checkpoint"):
        load(tmp_path / "x.safetensors")
