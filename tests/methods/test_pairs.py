"""Pairs of images for change detection: methods, split files, views, scripts, bad input."""

import re
import shutil
from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
import predict
import tools.check_data.__main__ as check_data
from dataset.cache import CacheBytes
from dataset.folders import read_samples
from dataset.loaders import ProcessInfo, training_loader
from dataset.protocols import fingerprint
from dataset.reader import Reader
from dataset.split_files import line_paths, split_identity
from dataset.transforms.strong import strong_view
from dataset.validation import check_files, read_splits
from dataset.views import make_views
from inference.overlay import overlay, side_by_side
from model.build import network_from_config
from model.trained import load_network
from supervised import SupOnly
from tests.conftest import Toy, every_method
from tools.report import predictions
from tools.report.predictions import predict_validation
from tools.results.runs import Run
from util.config.loading import load_config
from util.errors import UserError


@pytest.fixture
def pairs(tmp_path, scenes):
    """A toy dataset with a config of pairs."""
    toy = Toy(tmp_path / "toy")
    toy.tree |= {"evaluation": {"select": "iou:changed"}, "epochs": 1, "epoch_length": 2}
    toy.use_pairs(scenes)
    return toy


@every_method
def test_every_method_learns_several_classes_of_change(kind, pairs, scenes, train, run, tmp_path):
    pairs.change_data(
        classes=["unchanged", "ground or shape", "shape or another"], label_map=None,
        pair={"first": "A", "second": "B", "masks": "kinds"},
    )  # fmt: skip
    pairs.change(evaluation={"select": "iou:shape or another"})
    train(kind, pairs.argv(tmp_path / "run"))
    best = torch.load(tmp_path / "run/best.pth", weights_only=True)
    assert best["config"]["data"]["pair"]["second"] == "B"
    argv = ["--config", pairs.config, "--checkpoint", tmp_path / "run/best.pth"]
    code, _, _ = run(evaluate, *argv, "--save-path", tmp_path / "scores")
    counted = (tmp_path / "scores/confusion.csv").read_text().splitlines()
    pixels = [sum(map(int, line.split(",")[1:])) for line in counted[1:]]
    names = (scenes / "val.txt").read_text().split()
    masks = np.stack([np.asarray(Image.open(scenes / "kinds" / name)) for name in names])
    assert code == 0 and pixels == [(masks == index).sum() for index in range(3)]


@pytest.mark.parametrize("network", ["deeplabv3plus", "pspnet", "unet", "dpt"])
def test_a_siamese_network_sees_no_change_where_there_is_none(network, pairs):
    backbone = "test_vit" if network == "dpt" else "test_resnet"
    settings = [f"model.network={network}", f"model.backbone={backbone}", "crop_size=64"]
    config = load_config(pairs.config, settings)
    siamese = network_from_config(config.model, config.data).eval()
    x = torch.randn(2, 3, 64, 64)
    assert all((f == 0).all() for f in siamese.features(torch.cat([x, x], dim=1)))
    y = torch.randn(2, 3, 64, 64)
    one, other = (siamese(torch.cat(dates, dim=1)) for dates in ((x, y), (y, x)))
    torch.testing.assert_close(one, other)  # independent of the order of dates
    assert one.shape == (2, 2, 64, 64)


def test_both_dates_share_geometry_and_boxes_but_not_colours(pairs):
    config = load_config(pairs.config, ["cutmix_partner=batch", "data.grey_probability=0"])
    lists = read_splits(config.data, unlabeled=True)
    loader = training_loader(
        config, lists, CacheBytes(0, 0, 0), 2, 2, 2, ProcessInfo(0, 1, 0, False)
    )
    raw = next(iter(loader))
    u = raw["unlabeled"]
    assert u["image"].shape == (2, 33, 33, 6) and len(u["strong_params"]) == 4
    assert not any(view["grey"].any() for view in u["strong_params"])
    views = make_views(raw, torch.zeros(6, 1, 1), torch.ones(6, 1, 1))["unlabeled"]
    for number, (strong, box) in enumerate(zip(views["strong"], views["box"], strict=True)):
        own = [
            strong_view(
                views["weak"][:, 3 * date : 3 * date + 3], u["strong_params"][2 * number + date]
            )
            for date in range(2)
        ]
        whole = torch.cat(own, dim=1)
        mixed = torch.where(box[:, None], whole.roll(1, 0), whole)
        torch.testing.assert_close(strong, mixed)
    changed = raw["labeled"]["mask"]
    assert set(changed.unique().tolist()) <= {0, 1, 255}


def test_lists_of_names_are_known_by_their_hash(pairs, scenes):
    config = load_config(pairs.config)
    labeled, unlabeled, _ = read_splits(config.data, unlabeled=True)
    sample = labeled.samples[0]
    assert [f.relative_to(scenes).as_posix() for f in sample.image_files] == [
        "A/train/00000.png", "B/train/00000.png",
    ]  # fmt: skip
    assert sample.mask == "label/train/00000.png" and line_paths(sample) == ["train/00000.png"]
    published = fingerprint((scenes / "labeled.txt").read_bytes())
    assert split_identity(labeled.samples)["sha256"] == published.sha256
    assert unlabeled.samples[0].mask is None and unlabeled.samples[0].second is not None


def test_columns_and_folders_are_the_same_samples(pairs, scenes):
    names = (scenes / "labeled.txt").read_text().split()
    lines = [f"A/{n} B/{n} label/{n}" for n in names]
    pairs.path("labeled").write_text("\n".join(lines))
    listed = {"data.pair": "column", "data.labeled": pairs.path("labeled")}
    folders = "{images: A/val, second: B/val, masks: label/val}"
    config = load_config(
        pairs.config, [*(f"{k}={v}" for k, v in listed.items()), f"data.val={folders}"]
    )
    labeled, _, val = read_splits(config.data, unlabeled=False)
    by_name = read_splits(load_config(pairs.config).data, unlabeled=False)
    reader = Reader(config.data)
    for columns, names in ((labeled, by_name.labeled), (val, by_name.val)):
        for one, other in zip(columns.samples, names.samples, strict=True):
            (image, mask), (image2, mask2) = (
                reader.image_and_mask(one),
                reader.image_and_mask(other),
            )
            assert np.array_equal(image, image2) and np.array_equal(mask, mask2)


@pytest.mark.parametrize(
    "line, message",
    [
        ("A/train/00000.png", "has no second image; expected 'first second mask'"),
        ("A/train/00000.png B/train/00000.png", "has no mask; expected 'first second mask'"),
        ("a.png b.png c.png d.png", "4 parts, expected 'first second mask'"),
        ("A/train/00000.png B/train/x.png label/train/00000.png", "B/train/x.png: no such file"),
        ("A/train/00000.png ../B.png label/train/00000.png", "leads out of the data's root"),
        ("A/train/00000.png odd.png label/train/00000.png", "the later image is 20x10"),
        ("A/train/00000.png B/train/00000.png three.png", "value 127"),
    ],
)
def test_bad_pairs_are_refused_in_one_line(line, message, pairs, scenes, train, tmp_path, capsys):
    for folder in ("A", "B", "label"):
        (tmp_path / "root").mkdir(exist_ok=True)
        (tmp_path / "root" / folder).symlink_to(scenes / folder)
    Image.new("RGB", (20, 10)).save(tmp_path / "root/odd.png")
    Image.new("L", (40, 40), 127).save(tmp_path / "root/three.png")
    pairs.path("labeled").write_text(line)
    pairs.change_data(
        root=str(tmp_path / "root"), pair="column", labeled=str(pairs.path("labeled")),
        val={"images": "A/val", "second": "B/val", "masks": "label/val"},
    )  # fmt: skip
    with pytest.raises(SystemExit) as end:
        train(SupOnly, pairs.argv(tmp_path / "run"))
    output = capsys.readouterr().err
    assert end.value.code == 2 and message in output and output.count("\n") == 1, output


def test_a_name_missing_in_a_folder_is_told(pairs, scenes, tmp_path):
    (tmp_path / "B").mkdir()
    folders = f"{{images: A/val, second: {tmp_path / 'B'}, masks: label/val}}"
    with pytest.raises(UserError, match="leads out"):
        read_splits(load_config(pairs.config, [f"data.val={folders}"]).data, unlabeled=False)
    without = "{images: A/val, masks: label/val}"
    with pytest.raises(UserError, match="need second images"):
        read_splits(load_config(pairs.config, [f"data.val={without}"]).data, unlabeled=False)
    fewer = "{images: A, second: B/val, masks: label}"
    with pytest.raises(UserError, match="has no second image"):
        read_splits(load_config(pairs.config, [f"data.val={fewer}"]).data, unlabeled=False)


def test_a_line_is_one_name(pairs):
    pairs.path("labeled").write_text("00000.png 00001.png")
    config = load_config(pairs.config, [f"data.labeled={pairs.path('labeled')}"]).data
    with pytest.raises(UserError, match="line 1: 2 parts, expected 'name'"):
        read_splits(config, unlabeled=False)


def test_two_dots_lead_out_where_they_are_a_folder(pairs):
    pairs.path("labeled").write_text("a..b.png\na/../../b.png")
    config = load_config(pairs.config, [f"data.labeled={pairs.path('labeled')}"]).data
    with pytest.raises(UserError, match=r"line 2: 'a/../../b.png' leads out"):
        read_splits(config, unlabeled=False)


def test_dates_of_two_sizes_are_seen_in_the_headers(pairs, scenes, tmp_path):
    root = shutil.copytree(scenes, tmp_path / "root")
    name = (root / "unlabeled.txt").read_text().split()[-1]
    Image.new("RGB", (20, 10)).save(root / "B" / name)
    config = load_config(pairs.config, [f"data.root={root}", "data.check_samples=0"]).data
    with pytest.raises(UserError, match="the later image is 20x10"):
        check_files(config, *read_splits(config, unlabeled=True))


@pytest.mark.parametrize("lacking", ["A", "B", "label"])
def test_a_name_that_is_not_in_all_three_folders_is_told(lacking, pairs, scenes, tmp_path):
    root, name = tmp_path / "root", "train/00000.png"
    shutil.copytree(scenes, root)
    (root / lacking / name).unlink()
    config = load_config(pairs.config, [f"data.root={root}"]).data
    lists = read_splits(config, unlabeled=False)
    there = "B" if lacking == "A" else "A"
    message = (
        f"'{name}' is in {there} but not in {lacking}; expected it in all folders of data.pair"
    )
    with pytest.raises(UserError, match=message) as error:
        check_files(config, *lists)
    assert str(error.value).startswith(f"{scenes / 'labeled.txt'} line ")
    for folder in ("A", "B", "label"):
        (root / folder / name).unlink(missing_ok=True)
    with pytest.raises(UserError, match=f"{root / 'A' / name}: no such file"):
        check_files(config, *lists)


def test_what_lies_in_the_other_folders_alone_is_warned_of(pairs, scenes, caplog):
    folders = "{images: A/val, second: B, masks: label}"
    root = shutil.copytree(scenes, scenes.with_name("more"))
    for folder in ("B", "label"):
        for file in (root / folder / "val").iterdir():
            file.rename(root / folder / file.name)
    config = load_config(pairs.config, [f"data.root={root}", f"data.val={folders}"]).data
    caplog.clear()
    assert len(read_samples(config.val, config, masks=True).samples) == 2
    left = [record.getMessage() for record in caplog.records]
    assert len(left) == 2 and "has no image for 3 masks" in left[0], left
    assert "has no image for 7 second images, such as" in left[1]
    assert str(root / "B/train/00000.png") in left[1]


def test_evaluate_predict_and_check_data(pairs, scenes, pair_run, run, tmp_path):
    checkpoint = ("--checkpoint", pair_run)
    assert "changed" in run(evaluate, *checkpoint).output()

    command = (predict, *checkpoint, "--save-path", tmp_path / "out", "--images", scenes / "A/val")
    err = run(*command).mistake()
    assert err == (
        "error: --second: missing; the config's samples are pairs. Fix: name the later images with "
        "--second\n"
    )
    (tmp_path / "one").mkdir()
    (tmp_path / "one/00000.png").symlink_to(scenes / "B/val/00000.png")
    err = run(*command, "--second", tmp_path / "one").mistake()
    assert f"no later image has the name of {scenes / 'A/val/00001.png'}" in err
    out = tmp_path / "both"
    command = (predict, *checkpoint, "--save-path", out, "--images", scenes / "A/val")
    run(*command, "--second", scenes / "B/val", "--overlays", "png").output()
    mask = np.array(Image.open(out / "masks/00000.png"))
    assert mask.shape == (40, 40) and set(np.unique(mask)) <= {0, 1}
    config = load_config(pairs.config).data
    dates = [overlay(Image.open(scenes / date / "val/00000.png"), mask, config, 0) for date in "AB"]
    shown = np.array(Image.open(out / "overlays/00000.png"))[:48, :92]
    assert np.array_equal(shown, np.array(side_by_side([dates])))

    page = tmp_path / "report.html"
    assert "changed" in run(check_data, "--config", pairs.config, "--html", page).output()
    shown = [
        np.array(Image.open(BytesIO(b64decode(text))), float)
        for text in re.findall('src="data:image/jpeg;base64,([^"]+)', page.read_text())
    ]
    dates = [np.array(Image.open(scenes / date / "train/00000.png"), float) for date in "AB"]
    for date in dates:  # a JPEG of each date is nearer to it than to the other date
        nearest = min(abs(image - date).mean() for image in shown if image.shape == date.shape)
        assert nearest < abs(dates[0] - dates[1]).mean() / 2


def test_the_best_and_worst_pairs_are_shown_with_both_dates(scenes, pair_run, run, tmp_path):
    out = tmp_path / "out"
    run(evaluate, "--checkpoint", pair_run, "--save-path", out, "--worst", 2).output()
    assert len(worst := list((out / "worst").iterdir())) == 2
    for shown in worst:
        sheet, name = np.array(Image.open(shown)), shown.name.split("_")[1]
        for column, date in enumerate("AB"):
            part = sheet[4:44, 4 + 44 * column :][:, :40].astype(float)
            own, other = (np.array(Image.open(scenes / d / "val" / name.replace("jpg", "png")))
                          for d in (date, "BA"[column]))  # fmt: skip
            assert abs(part - own).mean() < abs(part - other).mean() / 2  # the file is a JPEG

    found = predict_validation(Run(pair_run), "model", torch.device("cpu"), limit=None)
    best, worst = predictions.best_and_worst(found, 2)
    judged = [index for index, _ in best + worst]
    assert len(set(judged)) == len(judged) == 2
    for index, (sheet, _) in zip(
        judged, predictions.compared_pictures(found, best + worst), strict=True
    ):
        dates = [Image.open(file).resize((240, 240), Image.Resampling.LANCZOS)
                 for file in found.samples[index].image_files]  # fmt: skip
        both = side_by_side([dates]).crop((0, 0, 2 * 244, 248))
        assert np.array_equal(np.array(sheet.crop((0, 0, 2 * 244, 248))), np.array(both))


def test_a_checkpoint_of_pairs_is_none_of_single_images(pair_run):
    """Refuse single images, although the weights of one date would fit."""
    best = pair_run / "best.pth"
    config = load_config(best.with_name("config.yaml"))
    single = config.data.model_copy(update={"pair": None})
    with pytest.raises(UserError, match=r"data\.pair \(pairs -> single images\)\. Fix: --c"):
        load_network(config.model, single, best)
    assert load_network(config.model, config.data, best).siamese


def test_single_images_take_no_second_ones(trained, toy, user_error, tmp_path):
    images = ["--images", toy.root / "images", "--second", toy.root / "images"]
    output = user_error(predict, "--checkpoint", trained, *images, "--save-path", tmp_path / "out")
    assert "single images" in output
