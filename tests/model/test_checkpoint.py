"""Checkpoints: formats, reports, errors, atomic writes."""

import os
import struct
import time
import zipfile
from unittest.mock import MagicMock

import huggingface_hub.constants
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from engine.run_dir import RunDir
from model.build import another_network, build_network
from model.checkpoint import (
    link_atomically,
    load,
    load_weights,
    network_state,
    nonfinite_tensors,
    save_atomically,
)
from model.hub import use_cache_if_offline
from model.pretrained import PRETRAINED_FOLDER, load_backbone
from model.trained import load_network
from util.config.data import Data
from util.config.loading import load_config
from util.config.schema import Model
from util.errors import UserError
from util.io import SECONDS_PER_DAY, write_atomically

TINY = Model(backbone="resnet10t", channels=8, pretrained="none")
DATA = Data(name="d", root=".", classes=["a", "b", "c"], val="v")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.pth"


def published(state, prefix=""):
    return {prefix + k: v for k, v in state.items()}


@pytest.mark.parametrize("config", ["[]", '"a"', "1", "null", "{", 100_000 * "["])
def test_a_config_in_safetensors_is_a_mapping(config, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors.torch.save({"w": torch.zeros(1)}, {"config": config}))
    with pytest.raises(UserError, match=r"a.safetensors: not a readable checkpoint \(") as error:
        load(path)
    assert "\n" not in str(error.value)


def test_damaged_headers_of_safetensors(tmp_path):
    path = tmp_path / "a.safetensors"
    whole = safetensors.torch.save({"weight": torch.zeros(2, 3)}, {"config": "{}"})
    damaged = [whole[:n] for n in (0, 4, 8, 20, len(whole) - 1)]
    damaged += [struct.pack("<Q", size) + whole[8:] for size in (0, 2, 2**32, 2**64 - 1)]
    for place in range(8, 8 + struct.unpack("<Q", whole[:8])[0]):
        damaged.append(whole[:place] + bytes([whole[place] ^ 32]) + whole[place + 1 :])
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            load(path)  # some changes only rename an entry
        except UserError as error:
            refused += "\n" not in str(error)
    assert refused > len(damaged) / 2


@pytest.mark.parametrize(
    ("form", "prefix"),
    [("bare", ""), ("model", "module."), ("model_ema", "_orig_mod."), ("bare", "module._orig_mod."),
     ("method", "")],
)  # fmt: skip
def test_every_published_form_loads(form, prefix, path):
    network = build_network(TINY, 3)
    state = published(network.state_dict(), prefix)
    which = "model_ema" if form == "model_ema" else "model"
    torch.save(
        {
            "bare": state,
            "model": {"model": state, "epoch": 3, "previous_best": np.float64(71.2)},
            "model_ema": {"model": {}, "model_ema": state},
            "method": {"method": published(network.state_dict(), "model."), "best": {}},
        }[form],
        path,
    )
    loaded = load_network(TINY, DATA, path, which)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, network.state_dict()[name])


def test_parts_of_a_method_alone_are_left_out(path, caplog):
    network = build_network(TINY, 3)
    torch.save({"model": network.state_dict() | {"correlation.proj.weight": torch.ones(1)}}, path)
    loaded = load_network(TINY, DATA, path).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in network.state_dict().items())
    assert "ignored 1 weight that the network does not have: correlation.proj.weight" in caplog.text


def test_what_weights_do_not_depend_on_may_differ(path):
    network = build_network(TINY, 3)
    own = {"data": DATA.model_dump(mode="json"), "model": TINY.model_dump(mode="json")}
    torch.save({"model": network.state_dict(), "config": own}, path)
    free = {"pretrained": "hub", "checkpoint_activations": True, "lock_backbone": True}
    load_network(TINY.model_copy(update=free), DATA, path)
    with pytest.raises(UserError, match=r"in model.channels \(8 -> 16\)$"):
        load_network(TINY.model_copy(update=free | {"channels": 16}), DATA, path)


def test_numpy_scalar_of_numpy_1(path):
    torch.save({"best": np.float64(3.5)}, path, pickle_protocol=2)
    with zipfile.ZipFile(path) as old:
        files = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, data in files.items():
            new.writestr(name, data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert load(path)["best"] == 3.5


def test_truncated_files_and_other_contents(path):
    torch.save({"x": torch.zeros(1000)}, path)
    whole = path.read_bytes()
    for size in (0, 10, 1000):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match="a.pth"):
            load(path)
    for state in ({}, [1], 3, {"model": 4}, {"model": {"a": "b"}}):
        with pytest.raises(UserError, match="a.pth"):
            network_state(state, path)


def _aliased():
    part = [0] * 10
    for _ in range(30):
        part = [part] * 10  # 10^31 values in a file of a few kilobytes
    return part


def _endless():
    part = []
    part.append(part)
    return part


@pytest.mark.parametrize(
    "make, message", [(_aliased, "unfold to more than"), (_endless, "holds itself")]
)
def test_lists_without_end_are_refused(make, message, path):
    torch.save({"method": {}, "history": make()}, path)
    with pytest.raises(UserError, match=message):
        load(path)


W = {"w": torch.zeros(1)}


@pytest.mark.parametrize("state, names", [
    ({"method": {"model.w": W["w"], "model_ema.w": W["w"], "tau": W["w"]}}, "model or model_ema"),
    ({"state_dict": W, "teacher": W, "optimizer": {"lr": 0.1}}, "state_dict or teacher"),
])  # fmt: skip
def test_weights_under_other_names_are_named(state, names, path):
    with pytest.raises(UserError, match=f"a.pth.*under 'best'.*. Fix: use those under {names}$"):
        network_state(state, path, "best")
    with pytest.raises(UserError) as none:
        network_state({"optimizer": {"lr": 0.1}}, path, "best")
    assert "use those" not in str(none.value)


@pytest.mark.parametrize(
    "error, message", [(RuntimeError("a\nb"), "(a b)"), (KeyError(), "(KeyError)")]
)
def test_module_errors_about_odd_weights_are_one_line(error, message, monkeypatch):
    module = nn.Linear(1, 1)

    def load_state_dict(state):
        raise error

    monkeypatch.setattr(module, "load_state_dict", load_state_dict)
    with pytest.raises(UserError) as found:
        load_weights(module, nn.Linear(1, 1).state_dict(), "x.pth")
    assert str(found.value) == f"x.pth: cannot be loaded into Linear {message}"


def test_missing_unexpected_and_misshapen_weights_are_named():
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    state = dict(module.state_dict())
    state["0.weight"] = torch.zeros(5, 2)
    state["other"] = state.pop("1.bias")
    with pytest.raises(UserError) as error:
        load_weights(module, state, "x.pth")
    for part in ("1 missing: 1.bias", "1 unexpected: other", "0.weight [5, 2] instead of [3, 2]"):
        assert part in str(error.value)


def test_two_processes_that_write_one_file_share_no_temporary_file(path):
    def write(file):
        file.write(b"first, ")
        write_atomically(path, lambda other: other.write(b"second"))
        file.write(b"whole")

    write_atomically(path, write)
    assert path.read_bytes() == b"first, whole"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("locks", [True, False])
def test_temporary_files_of_killed_runs_are_removed(locks, tmp_path, monkeypatch):
    """Remove temporary files at once under the lock, after a day without locks; keep user files."""

    def lockf(*_):
        raise OSError(37, "No locks available")

    if not locks:
        monkeypatch.setattr("fcntl.lockf", lockf)
    left, users = (tmp_path / f"latest.pth{end}.partial" for end in (".0123abcd", ""))
    left.touch()
    users.touch()
    RunDir(tmp_path).lock()
    assert left.exists() != locks
    later = time.time() + SECONDS_PER_DAY
    monkeypatch.setattr("time.time", lambda: later)
    RunDir(tmp_path).lock()
    assert list(tmp_path.glob("*.partial")) == [users]


def test_best_outlives_the_next_latest(tmp_path):
    latest, best = tmp_path / "latest.pth", tmp_path / "best.pth"
    save_atomically({"epoch": 1}, latest)
    link_atomically(latest, best)
    save_atomically({"epoch": 2}, latest)
    assert load(best) == {"epoch": 1} and load(latest) == {"epoch": 2}
    for _ in range(2):  # the second time, both names are already one file
        link_atomically(latest, best)
    assert load(best) == {"epoch": 2}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.pth", "latest.pth"]


def test_there_is_always_a_latest(tmp_path, monkeypatch):
    latest, previous = tmp_path / "latest.pth", tmp_path / "previous.pth"
    save_atomically({"epoch": 1}, latest, previous)
    save_atomically({"epoch": 2}, latest, previous)
    assert load(previous) == {"epoch": 1} and load(latest) == {"epoch": 2}

    def failing(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "link", failing)  # a file system without hard links
    save_atomically({"epoch": 3}, latest, previous)
    assert load(previous) == {"epoch": 2} and load(latest) == {"epoch": 3}


def test_pretrained_backbone_from_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    donor = build_network(TINY, 3)
    weights = donor.backbone.state_dict() | {"fc.weight": torch.zeros(10, 512)}
    PRETRAINED_FOLDER.mkdir()
    for file, options in (
        (PRETRAINED_FOLDER / "resnet10t.pth", TINY.model_copy(update={"pretrained": "file"})),
        (tmp_path / "mine.pth", TINY.model_copy(update={"pretrained": str(tmp_path / "mine.pth")})),
    ):
        torch.save(weights, file)
        network = build_network(TINY, 3)
        report = load_backbone(network, options, 3)
        assert "fc.weight" in report and str(file.name) in report
        for name, value in network.backbone.state_dict().items():
            assert torch.equal(value, weights[name])
    del weights["layer1.0.conv1.weight"]
    torch.save(weights, tmp_path / "mine.pth")
    with pytest.raises(UserError, match=r"layer1\.0\.conv1\.weight"):
        load_backbone(network, options, 3)


@pytest.mark.parametrize("pretrained", ["hub", "none"])
def test_another_network_has_the_pretrained_backbone_of_the_first(pretrained, toy):
    first = build_network(TINY, 3)
    config = load_config(toy.config)
    model = TINY.model_copy(update={"pretrained": pretrained})
    second = another_network(first, config.model_copy(update={"model": model}))
    assert torch.equal(second.backbone.bn1.weight, first.backbone.bn1.weight)
    first_weight, second_weight = (n.backbone.conv1[0].weight for n in (first, second))
    assert torch.equal(first_weight, second_weight) == (pretrained == "hub")
    assert not torch.equal(first.classifier.weight, second.classifier.weight)


def test_timm_weights_of_another_family(tmp_path):
    """Names in a feature extractor differ from those of the whole network in a file."""
    torch.save(timm.create_model("convnext_atto").state_dict(), tmp_path / "w.pth")
    options = Model(backbone="convnext_atto", output_stride=32, pretrained=str(tmp_path / "w.pth"))
    network = build_network(options, 3)
    report = load_backbone(network, options, 3)
    assert f"{len(network.backbone.state_dict())} entries loaded; 4 not needed (the cl" in report
    weights = torch.load(tmp_path / "w.pth", weights_only=True)
    ours = network.backbone.state_dict()["stages_1.blocks.0.conv_dw.weight"]
    assert torch.equal(ours, weights["stages.1.blocks.0.conv_dw.weight"])
    assert network.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 3, 64, 64)


def test_weights_of_the_hub(monkeypatch):
    donor = timm.create_model("resnet10t")
    network = build_network(TINY, 3)
    monkeypatch.setattr("timm.create_model", lambda name, pretrained: {True: donor}[pretrained])
    report = load_backbone(network, TINY.model_copy(update={"pretrained": "hub"}), 3)
    assert "timm hub, resnet10t" in report
    assert report.endswith("; 2 not needed (the classifier: fc.weight, fc.bias)")
    assert torch.equal(network.backbone.bn1.weight, donor.bn1.weight)


def test_hub_that_cannot_be_reached(monkeypatch):
    def offline(*_, **__):
        raise OSError("no route\nto host")

    network = build_network(TINY, 3)
    monkeypatch.setattr("timm.create_model", offline)
    monkeypatch.setattr("huggingface_hub.get_session", offline)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(UserError, match="hub weights of 'resnet10t' cannot be loaded .no route"):
        load_backbone(network, TINY.model_copy(update={"pretrained": "hub"}), 3)
    assert huggingface_hub.constants.HF_HUB_OFFLINE  # the hub's client would retry for a minute
    monkeypatch.setattr("huggingface_hub.get_session", MagicMock())
    use_cache_if_offline()
    assert not huggingface_hub.constants.HF_HUB_OFFLINE, "the connection is there again"


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("name", ["resnet18", "resnet50s", "resnet101s"])
def test_any_resnet_at_any_stride(name, stride):
    options = Model(backbone=name, output_stride=stride, channels=8, multi_grid=name != "resnet18")
    with torch.device("meta"):
        network = build_network(options, 5)
        features = network.eval().features(torch.zeros(2, 3, 65, 65))
        assert [f.shape[-1] for f in features] == [17, -(-65 // stride)]
        assert network.decode(features, (65, 65)).shape == (2, 5, 65, 65)


@pytest.mark.parametrize("network", ["deeplabv3plus", "pspnet"])
@pytest.mark.parametrize("stride", [8, 16])
def test_multi_grid_multiplies_the_dilations_of_the_last_stage(stride, network):
    def dilations(multi_grid):
        options = Model(
            network=network, backbone="resnet50s", output_stride=stride, multi_grid=multi_grid
        )
        with torch.device("meta"):
            blocks = build_network(options, 5).backbone.layer4
        assert all(block.conv2.padding == block.conv2.dilation for block in blocks)
        return [block.conv2.dilation[0] for block in blocks]

    plain = dilations(False)
    assert dilations(True) == [2 * plain[0], 2 * plain[1], 4 * plain[2]]


@pytest.mark.parametrize("model", [
    {"backbone": "resnet34"},
    {"backbone": "res2net50_26w_4s"},
    {"backbone": "skresnet50"},
    {"network": "dpt", "backbone": "test_vit"},
    {"network": "unet"},
], ids=str)  # fmt: skip
def test_multi_grid_is_refused_where_it_has_no_effect(model):
    options = Model(**model, multi_grid=True)
    with torch.device("meta"), pytest.raises(UserError, match="^model.multi_grid: needs a ResNet-"):
        build_network(options, 5)


def test_a_unet_of_a_config_that_set_multi_grid_loads_without_it(path):
    options = Model(network="unet", widths=[8, 8, 8, 8, 8])
    own = {"data": DATA.model_dump(mode="json"), "model": options.model_dump(mode="json")}
    own["model"]["multi_grid"] = True
    torch.save({"model": build_network(options, 3).state_dict(), "config": own}, path)
    load_network(options, DATA, path)


def test_a_tensor_without_values_is_refused(path):
    torch.save({"model": {"a": torch.empty(3, dtype=torch.int64, device="meta")}}, path)
    with pytest.raises(UserError, match="not a readable checkpoint .a tensor in it has no values"):
        load(path)


@pytest.mark.parametrize("value, finite", [(1.0, True), (float("nan"), False)])
def test_a_tensor_that_repeats_its_storage_is_looked_at_once(value, finite):
    huge = torch.tensor([value]).expand(2**20, 2**20)
    assert bool(nonfinite_tensors({"model": huge})) is not finite
