"""Configs in configs/: valid for their methods, with the published settings."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from corrmatch import CorrMatch
from fixmatch import FixMatch
from model.build import network_from_config
from prevmatch import PrevMatch
from rankmatch import RankMatch
from supervised import SupOnly
from tests.conftest import METHODS, REPOSITORY
from tools.configuration import page
from tools.sweep.spec import expand, read_sweep
from unimatch import UniMatch
from unimatch_v2 import UniMatchV2
from util.config.loading import dump_config, load_config, portable, sections_of
from util.config.schema import Config
from util.config.unused import unused_settings
from util.errors import UserError

CONFIGS = {path.stem: path for path in (Path(__file__).parents[2] / "configs").glob("*.yaml")}
DATASETS = sorted(name for name in CONFIGS if "_" not in name)

CE = ("ce",)
R101, R101_8 = ("resnet101s", 16, (6, 12, 18)), ("resnet101s", 8, (12, 24, 36))
R50, R50_8 = ("resnet50s", 16, (6, 12, 18)), ("resnet50s", 8, (6, 12, 18))
XCEPTION = ("xception65_deeplab", 16, (6, 12, 18))
ALIKE = (SupOnly, FixMatch, UniMatch, RankMatch)


def ohem(min_kept):
    return ("ohem", 0.7, min_kept)


PUBLISHED = [
    # config, methods, crop, epochs, batch, lr, lr_multi, threshold, criterion, network
    ("pascal", ALIKE, 321, 80, 8, 0.001, 10, "fixed 0.95", CE, R101),
    ("pascal_prevmatch", [PrevMatch], 321, 80, 8, 0.001, 10, "fixed 0.95", CE, R101),
    ("pascal_corrmatch", [CorrMatch], 321, 80, 8, 0.001, 10, "dynamic 0.85", CE, R101_8),
    ("cityscapes", ALIKE, 801, 240, 8, 0.005, 1, "fixed 0", ohem(100_000), R101),
    ("cityscapes_prevmatch", [PrevMatch], 801, 240, 8, 0.005, 1, "fixed 0", ohem(50_000), R101),
    ("cityscapes_corrmatch", [CorrMatch], 801, 240, 8, 0.005, 1, "fixed 0", ohem(50_000), R101_8),
    ("coco", ALIKE, 513, 30, 8, 0.004, 10, "fixed 0.95", CE, XCEPTION),
    ("coco_prevmatch", [PrevMatch], 513, 30, 8, 0.004, 10, "fixed 0.95", CE, XCEPTION),
    ("ade20k", [SupOnly, UniMatch], 513, 40, 8, 0.004, 10, "fixed 0.95", CE, R101),
    ("ade20k_prevmatch", [PrevMatch], 513, 40, 8, 0.004, 10, "fixed 0.95", CE, R101),
    ("levir", [SupOnly, UniMatch], 256, 80, 8, 0.02, 1, "fixed 0.95", CE, R50),
    ("levir_pspnet", [SupOnly, UniMatch], 256, 80, 8, 0.02, 1, "fixed 0.95", CE, R50_8),
    ("whu", [SupOnly, UniMatch], 256, 80, 8, 0.02, 1, "fixed 0.95", CE, R50),
    ("whu_pspnet", [SupOnly, UniMatch], 256, 80, 8, 0.02, 1, "fixed 0.95", CE, R50_8),
]
ON_DINOV2 = (SupOnly, FixMatch, UniMatchV2)
PUBLISHED_ON_DINOV2 = [
    # config, crop, epochs, batch, criterion, frozen encoder, evaluation
    ("pascal_unimatch_v2", 518, 60, 16, CE, False, "original"),
    ("coco_unimatch_v2", 518, 20, 16, CE, False, "original"),
    ("cityscapes_unimatch_v2", 798, 180, 8, ohem(100_000), False, "sliding_window"),
    ("ade20k_unimatch_v2", 518, 60, 8, CE, True, "original"),
    ("levir_unimatch_v2", 252, 60, 8, CE, False, "original"),
    ("whu_unimatch_v2", 252, 60, 8, CE, False, "original"),
]
CHANGES = [f"{name}{end}" for name in ("levir", "whu") for end in ("", "_pspnet", "_unimatch_v2")]
PREVMATCH = [
    # config, list_max_len, model_num, random_select, prev.conf_thresh, base_only_epoch, confidence
    ("pascal_prevmatch", 8, 3, True, 0.9, 0, "pixelwise"),
    ("cityscapes_prevmatch", 8, 3, True, 0, 0, "pixelavg"),
    ("coco_prevmatch", 5, 3, True, 0.9, 5, "pixelwise"),
    ("ade20k_prevmatch", 5, 3, True, 0.9, 5, "pixelwise"),
]


def load(name):
    return load_config(CONFIGS[name])


def build(config):
    with torch.device("meta"):  # shapes without memory
        return network_from_config(config.model, config.data)


def threshold(method, config):
    start = getattr(method.read_options(config), "thresh_init", None)
    return f"fixed {config.conf_thresh:g}" if start is None else f"dynamic {start:g}"


def criterion(config):
    c = config.criterion
    return CE if c.name == "ce" else (c.name, c.thresh, c.min_kept)


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row[0])
def test_published_settings(row):
    name, methods, *settings = row
    config = load(name)
    optimizer, model = config.optimizer, config.model
    for method in methods:
        assert settings == [
            config.crop_size,
            config.epochs,
            config.batch_size,
            optimizer.lr,
            optimizer.lr_multi,
            threshold(method, config),
            criterion(config),
            (model.backbone, model.output_stride, model.aspp_rates),
        ]
    assert (optimizer.momentum, optimizer.weight_decay, optimizer.power) == (0.9, 1e-4, 0.9)
    assert optimizer.lr_batch == config.batch_size
    assert config.evaluation.mode == ("sliding_window" if "cityscapes" in name else "original")


@pytest.mark.parametrize("row", PUBLISHED_ON_DINOV2, ids=lambda row: row[0])
def test_published_settings_on_dinov2(row):
    name, *settings = row
    config = load(name)
    optimizer, model, evaluation = config.optimizer, config.model, config.evaluation
    assert settings == [
        config.crop_size,
        config.epochs,
        config.batch_size,
        criterion(config),
        model.lock_backbone,
        evaluation.mode,
    ]
    assert (model.network, model.backbone) == ("dpt", "vit_base_patch14_dinov2")
    assert (optimizer.name, optimizer.lr, optimizer.lr_multi) == ("adamw", 5e-6, 40)
    assert (optimizer.weight_decay, optimizer.power) == (0.01, 0.9)
    assert optimizer.lr_batch == config.batch_size
    assert (config.conf_thresh, config.cutmix_partner) == (0.95, "flip")
    assert (evaluation.window_border == "shift") == ("cityscapes" in name)
    teacher = config.method.get("teacher", "ema")
    assert teacher == ("self" if name in CHANGES else "ema")
    for method in ON_DINOV2 if teacher == "ema" else (FixMatch, UniMatchV2):
        network = build(config)
        network.check_crop(config.crop_size)
        method(network, config)


@pytest.mark.parametrize(
    ("name", "images"), [("pascal", 3000), ("cityscapes", 3000), ("ade20k", 6000), ("coco", 30000)]
)
def test_published_epochs_of_suponly_on_dinov2(name, images):
    """An epoch of the published SupOnly repeats the labelled images up to this number."""
    config, text = load(f"{name}_unimatch_v2"), CONFIGS[f"{name}_unimatch_v2"].read_text()
    [length] = re.findall(r"epoch_length=(\d+)", text)
    assert int(length) == images // SupOnly.images_per_step(config)


def test_published_ohem_in_the_sweep_of_cityscapes():
    """Published per process: 200000, for 4 images with SupOnly and PrevMatch, for 2 with the
    others; CorrMatch 100000 for 2."""
    path = REPOSITORY / "configs/sweeps/cityscapes.yaml"
    found = {run.method: run.load().criterion.min_kept for run in expand(read_sweep(path), path)}
    halved = dict.fromkeys(("supervised", "prevmatch", "corrmatch"), 50_000)
    assert found == halved | dict.fromkeys(
        ("fixmatch", "unimatch", "rankmatch", "unimatch_v2"), 100_000
    )


@pytest.mark.parametrize("name", ["pascal", "cityscapes"])
def test_dinov3_is_dinov2_with_as_many_patches(name):
    published, config = load(f"{name}_unimatch_v2"), load(f"{name}_dinov3")
    network = build(config)
    network.check_crop(config.crop_size)
    assert (network.size_multiple, network.taps) == (16, [2, 5, 8, 11])
    assert config.crop_size // 16 == published.crop_size // 14
    model = published.model.model_copy(update={"backbone": "vit_base_patch16_dinov3"})
    change = {"model": model, "crop_size": config.crop_size}
    assert config == published.model_copy(update=change)
    text = CONFIGS[f"{name}_dinov3"].read_text()
    assert "no published score" in text and "Published mIoU" not in text


@pytest.mark.parametrize("name", CHANGES)
def test_published_settings_of_change_detection(name):
    """Images are 256x256; published runs select on the test split."""
    config, (dataset, *_) = load(name), name.split("_")
    data, (network, parameters) = config.data, {
        "": ("deeplabv3plus", 40.5), "pspnet": ("pspnet", 46.7), "unimatch_v2": ("dpt", 97.5),
    }[name.partition("_")[2]]  # fmt: skip
    assert (config.model.network, data.root) == (network, Path("data", dataset))
    assert (data.pair.first, data.pair.second, data.pair.masks) == (
        *map(Path, ("A", "B", "label")),
    )
    assert (data.classes, data.label_map) == (["unchanged", "changed"], {"0": 0, "255": 1})
    assert (data.scale, data.grey_probability) == ((0.8, 1.2), 0)
    assert config.cutmix_partner == ("flip" if network == "dpt" else "self")
    assert config.epoch_length is None and config.evaluation.select == "iou:changed"
    lists = (data.val, data.test)
    assert lists == tuple(Path("splits", dataset, kind) for kind in ("val.txt", "test.txt"))
    found = sum(parameter.numel() for parameter in build(config).parameters())
    assert found / 1e6 == pytest.approx(parameters, abs=0.06)


@pytest.mark.parametrize("name", ["levir_unimatch_v2", "whu_unimatch_v2"])
def test_an_empty_section_empties_that_of_the_base(name):
    """Empty the method section: SupOnly was published with the rest of these configs."""
    config = load_config(CONFIGS[name], ["method={}", "epoch_length=187"])
    assert config.method == {} and SupOnly.read_options(config) is not None
    rest = load(name).model_copy(update={"method": {}, "epoch_length": 187})
    assert config == rest
    with pytest.raises(UserError, match=r"unknown key 'method\.teacher'"):
        SupOnly.read_options(load(name))


def test_published_settings_of_prevmatch():
    for name, *settings in PREVMATCH:
        config = load(name)
        options = PrevMatch.read_options(config)
        assert settings == [
            options.list_max_len,
            options.model_num,
            options.random_select,
            options.prev.conf_thresh,
            options.base_only_epoch,
            options.prev.confidence,
        ], name
        assert config.precision == "float16" and load(name.split("_")[0]).precision == "float32"


def test_published_weight_and_references_of_rankmatch():
    options = RankMatch.read_options(load("pascal"))
    assert (options.rank_weight, options.references) == (0.1, 64)


def test_number_of_classes():
    counts = {"pascal": 21, "cityscapes": 19, "coco": 81, "ade20k": 150, "camvid": 11, "levir": 2,
              "whu": 2}  # fmt: skip
    assert {name: load(name).num_classes for name in counts} == counts


def test_configs_of_pascal_name_the_split_files_of_92_labels():
    for name in CONFIGS:
        if name.startswith("pascal"):
            data, folder = load(name).data, Path("splits/pascal/92")
            assert [data.labeled, data.unlabeled] == [
                folder / "labeled.txt", folder / "unlabeled.txt"
            ], name  # fmt: skip


def test_every_config_has_distinct_classes_and_loads_as_it_was_dumped(tmp_path):
    for name in CONFIGS:
        config, dumped = load(name), tmp_path / "config.yaml"
        classes, palette = config.data.classes, config.data.palette
        assert len(set(classes)) == len(classes), name
        assert palette is None or len(set(palette)) == len(palette) == len(classes), name
        dumped.write_text(dump_config(config))
        assert load_config(dumped) == config, name
    order = list(yaml.safe_load(dumped.read_text()))
    assert order == list(Config.model_fields), "as the page has them, not by the alphabet"


@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_config_is_for_every_method(name):
    config = load(name)
    assert config.method == {}
    with torch.device("meta"):
        network = build(config)
        network.check_crop(config.crop_size)
        network.check_batch(config.batch_size)
        assert network.classifier.out_channels == config.num_classes
        for method in METHODS.values():
            method(network, config)


def test_a_method_refuses_the_options_of_another_by_name():
    with pytest.raises(UserError, match=r"SupOnly: unknown key 'method\.thresh_init'"):
        SupOnly.read_options(load("cityscapes_corrmatch"))


def explained_keys(section, prefix=""):
    """Yield the dotted names of a section's keys and subkeys with their docstrings.

    Keys of a section that is one of several types of a value have a table of their own.
    """
    for name, field in section.model_fields.items():
        below = sections_of(field.annotation)
        alone = below == [field.annotation]
        if not alone:
            yield prefix + name, field.description
        for one in below:
            yield from explained_keys(one, f"{prefix}{name}." if alone else "")


def test_every_key_is_explained_and_the_page_is_up_to_date():
    keys = [*explained_keys(Config)]
    keys += [key for kind in METHODS.values() for key in explained_keys(kind.Options, "method.")]
    assert not [key for key, text in keys if not text]
    assert {"images", "list", "first", "data.labeled", "model.network"} <= {key for key, _ in keys}
    documented = (REPOSITORY / "docs/configuration.md").read_text()
    assert documented == page() and not [key for key, _ in keys if f"`{key}`" not in documented]


LIMITS = [
    # the last accepted value of a key, the first refused one
    ("epochs=1", "epochs=0"),
    ("epochs=2147483647", "epochs=2147483648"),
    ("seed=0", "seed=-1"),
    ("seed=2147483647", "seed=2147483648"),
    ("conf_thresh=0", "conf_thresh=-0.001"),
    ("conf_thresh=1", "conf_thresh=1.001"),
    ("conf_thresh='1e-3'", "conf_thresh=false"),
    ("save_every=1", "save_every=true"),
    ("optimizer.lr=1e-9", "optimizer.lr=0"),
    ("optimizer.weight_decay=0", "optimizer.weight_decay=-1e-9"),
    ("save_minutes=1e-9", "save_minutes=0"),
    ("epoch_length=10000000", "epoch_length=10000001"),
    ("batch_size=4096", "batch_size=4097"),
    ("crop_size=8192", "crop_size=8193"),
    ("data.root=.", "data.root=''"),
    ("data.palette=[[0,0,0],[0,0,0],[0,255,0]]", "data.palette=[[0,0,0],[0,0,0],[0,256,0]]"),
    ("data.palette=[[0,0,0],[0,0,0],[0,255,0]]", "data.palette=[[0,0,0],[0,0,0],[0,true,0]]"),
    ("data.palette=[[0,0,0],[0,0,0],[0,255,0]]", "data.palette=[[0,0,0],[0,0,0],[-1,0,0]]"),
    ("data.classes=[a,b]", "data.classes=[a]"),
    ("data.labeled=[a.txt]", "data.labeled=[]"),
    ("data.label_map={7: sky}", "data.label_map={}"),
    ("data.bands=[1]", "data.bands=[0]"),
    ("data.bands=[4096]", "data.bands=[4097]"),
    ("data.bands=[1]", "data.bands=[]"),
    ("data.image_range=[0,1]", "data.image_range=[1,1]"),
    ("data.image_range=[0,255]", "data.image_range=[true,255]"),
    ("data.image_range=[0,255]", "data.image_range=255"),
    ("data.image_range=[0,255]", "data.image_range={low: 0, high: 255}"),
    ("data.scale=[1,1]", "data.scale=[1,0.999]"),
    ("data.scale=[1e-9,100]", "data.scale=[0,100]"),
    ("data.scale=[1,100]", "data.scale=[1,100.001]"),
    ("data.std=[1e-9,1,1]", "data.std=[0,1,1]"),
    ("data.workers=512", "data.workers=513"),
    ("data.cache_mb=1048576", "data.cache_mb=1048577"),
    ("model.aspp_rates=[1,1,1]", "model.aspp_rates=[0,1,1]"),
    ("model.aspp_rates=[1,1,1024]", "model.aspp_rates=[1,1,1025]"),
    ("model.channels=1", "model.channels=0"),
    ("model.channels=4096", "model.channels=4097"),
    ("model.patch_size=256", "model.patch_size=257"),
    ("model={widths: [1, 2], dropout: [0, 1]}", "model={widths: [1], dropout: [0]}"),
    ("model.lora=0", "model.lora=-1"),
    ("model.layers=[1,2,3,4]", "model.layers=[0,2,3,4]"),
    ("model.pretrained=none", "model.pretrained=''"),
    ("optimizer.layer_decay=1", "optimizer.layer_decay=1.001"),
    ("optimizer.layer_decay=0.001", "optimizer.layer_decay=0"),
    ("criterion.min_kept=1", "criterion.min_kept=0"),
    ("evaluation.scales=[1e-9,16]", "evaluation.scales=[16.001]"),
    ("evaluation.scales=[1]", "evaluation.scales=[]"),
    ("log.pictures=64", "log.pictures=65"),
]  # fmt: skip
LIMITS_OF_METHODS = [
    (CorrMatch, "thresh_init=0", "thresh_init=-0.001"),
    (CorrMatch, "thresh_init=1", "thresh_init=1.001"),
    (CorrMatch, "thresh_momentum=0", "thresh_momentum=-0.001"),
    (CorrMatch, "thresh_momentum=1", "thresh_momentum=1.001"),
    (CorrMatch, "regions=1", "regions=0"),
    (CorrMatch, "regions=4096", "regions=4097"),
    (CorrMatch, "regions=1", "regions=true"),
    (RankMatch, "rank_weight=0", "rank_weight=-0.001"),
    (RankMatch, "references=4", "references=3"),
]


def test_limits_of_keys(toy):
    for last, beyond in LIMITS:
        load_config(toy.config, [last])
        with pytest.raises(UserError, match=beyond.partition("=")[0]):
            load_config(toy.config, [beyond])


def test_limits_of_the_options_of_methods(toy):
    for kind, last, beyond in LIMITS_OF_METHODS:
        kind.read_options(load_config(toy.config, [f"method.{last}"]))
        with pytest.raises(UserError, match=f"method.{beyond.partition('=')[0]}"):
            kind.read_options(load_config(toy.config, [f"method.{beyond}"]))


@pytest.mark.parametrize(("given", "message"), [
    ("data.root=~", r"data\.root: expected a path, found None\. Fix: put it in quotes"),
    ("channels_last=2", "toy.yaml.*: channels_last: Input should be a valid boolean"),
])  # fmt: skip
def test_messages_name_key_and_value(given, message, toy):
    with pytest.raises(UserError, match=message):
        load_config(toy.config, [given])


@pytest.mark.parametrize(("given", "messages"), [
    (["criterion.thresh=0.5"],
     ["criterion.thresh: 0.5 has no effect with criterion.name ce, only with ohem"]),
    (["criterion.thresh=0.5", "criterion.name=ohem"], []),
    (["model.network=unet", "model.backbone=resnet50", "model.output_stride=8"],
     ["model.backbone: resnet50", "model.output_stride: 8"]),
    (["optimizer.momentum=0.5", "optimizer.name=adamw"], ["optimizer.momentum: 0.5"]),
])  # fmt: skip
def test_settings_without_effect(given, messages, toy):
    base = ["model.backbone=resnet101s", "model.output_stride=16"]
    found = list(unused_settings(load_config(toy.config, base + given)))
    assert len(found) == len(messages)
    assert all(text.startswith(start) for text, start in zip(found, messages, strict=True))


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_have_no_settings_without_effect(name):
    assert not list(unused_settings(load(name)))


def test_a_base_in_the_home_folder(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(toy.config.parent))
    (tmp_path / "other.yaml").write_text(f"base: ~/{toy.config.name}\n")
    assert load_config(tmp_path / "other.yaml") == load_config(toy.config)


def test_only_paths_are_reduced_to_names(toy):
    pattern = r"/(\d+)(/|_)"
    config = load_config(toy.config, [f"evaluation.volume_pattern='{pattern}'",
                         "data.classes=[/a, b, c]", "model.pretrained=/w/r.pth",
                         "data.labeled=[/w/l.txt, {images: /w/i}, l.txt]"])  # fmt: skip
    found = portable(config)
    assert found.evaluation.volume_pattern == pattern and found.data.classes[0] == "/a"
    assert (found.data.root, found.model.pretrained) == (Path(toy.root.name), "r.pth")
    first, folders, last = found.data.labeled
    assert (first, folders.images, last) == (Path("l.txt"), Path("i"), Path("l.txt"))


def test_keys_of_label_maps_may_be_numbers_or_text(toy):
    toy.tree["data"]["label_map"] = {0: 0, "1": 1, 2: 2}
    toy.config.write_text(yaml.safe_dump(toy.tree))
    config = load_config(toy.config, ["data.label_map.0=ignore", "data.label_map={1: 2}"])
    assert config.data.label_map == {"0": 255, "1": 2, "2": 2}
    toy.config.write_text(toy.config.read_text() + "1: a\n'1': b\n")
    with pytest.raises(UserError, match="key '1' occurs twice"):
        load_config(toy.config)
