"""log.pictures: content of the pictures, which leave a training unchanged."""

import numpy as np
import pytest
import torch
from torch import nn

from corrmatch import CorrMatch
from engine.command import build_trainer
from engine.run_dir import RunDir
from engine.visualize import (
    MARK_COLOUR,
    PICTURE_SIDE,
    draw_panels,
    take_pictures,
    without_side_effects,
)
from model.build import build_network
from model.network import upsample
from prevmatch import PrevMatch
from rankmatch import RankMatch
from semi.panels import (
    Heat,
    Marks,
    Photo,
    decoder_features,
    principal_colours,
)
from supervised import SupOnly
from tests.bands import banded
from tests.batches import FAMILIES, raw_batch
from tests.conftest import METHODS, json_lines, saved
from tests.prototypes import Prototypes
from tests.runs import assert_equal
from unimatch import UniMatch
from util.config.loading import load_config

CPU = torch.device("cpu")
KINDS = METHODS | {"prototypes": Prototypes}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
WITH_TWO = ("--set", "log.pictures=2")


def learnt(folder):
    """Return history, weights and best scores of a run, without times."""
    state = saved(folder / "latest.pth")
    return json_lines(folder / "metrics.jsonl"), {
        k: state[k] for k in ("method", "optimizer", "best")
    }


def files(folder):
    return {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}


@kinds
def test_pictures_do_not_change_training(kind, toy, train, tmp_path):
    toy.change(epoch_length=1)
    train(kind, toy.argv(tmp_path / "without"))
    train(kind, toy.argv(tmp_path / "with", *WITH_TWO))
    assert_equal(learnt(tmp_path / "with"), learnt(tmp_path / "without"))
    assert not (tmp_path / "without/pictures").exists()
    names = ["val_01.png", "val_02.png"]
    if kind.unlabeled:
        names = ["reliability.png", "unlabeled_01.png", "unlabeled_02.png", *names]
    expected = [f"epoch_00{epoch}/{name}" for epoch in (1, 2) for name in names]
    assert sorted(files(tmp_path / "with/pictures")) == expected


def prepared(kind, toy, folder, *overrides):
    config = load_config(toy.config, ["log.pictures=2", *overrides])
    return build_trainer(kind, config, CPU, RunDir(folder), "never")


def panels_of(t, batch):
    with without_side_effects(t):
        return t.method.panels(batch)


COMMON = ["weak view", "pseudo-label", "confidence", "above the threshold", "decoder features"]
OWN_PANELS = {
    "corrmatch": ["label after propagation", "three pixels",
                  *(f"correlation with pixel {number}" for number in (1, 2, 3))],
    "rankmatch": ["reference pixels 1", "reference pixels 2"],
    "prevmatch": ["previous models", "their confidence", "where they differ"],
    "prototypes": ["nearest prototype"],
}  # fmt: skip
"""Panels of a method beyond those of `consistency_panels`."""


@pytest.mark.parametrize("partner", ["other", "batch"])
@pytest.mark.parametrize("name", [name for name in KINDS if KINDS[name].unlabeled])
def test_what_each_method_shows(name, partner, toy, tmp_path):
    kind = KINDS[name]
    t = prepared(kind, toy, tmp_path / "run", f"cutmix_partner={partner}")
    t.method.after_epoch(0, is_best=True)
    batch = raw_batch(2, partner=partner == "other", views=kind.strong_views)
    panels = panels_of(t, batch)
    numbers = range(1, kind.strong_views + 1)
    strong = [f"{title} {n}" for n in numbers for title in ("strong view", "label of strong view")]
    assert list(panels) == [*COMMON, *strong, *OWN_PANELS.get(name, [])]
    for panel in panels.values():
        first = panel[0]
        assert len(first) == 2 and not first.requires_grad
        if isinstance(panel, Heat):
            assert (first >= 0).all() and (first <= 1).all()
    u, own = batch["unlabeled"], panels["pseudo-label"]
    for number, box in enumerate(u["box"], start=1):
        assert torch.equal(panels[f"strong view {number}"].box, box)
    assert not own.shown[u["ignore"]].any() and own.shown[~u["ignore"]].all()
    sure = (panels["confidence"].share >= t.method.threshold) & ~u["ignore"]
    assert torch.equal(panels["above the threshold"].shown, sure)
    assert (
        draw_panels(panels, 1, t.config.data, t.mean, t.std).image("title").width > 4 * PICTURE_SIDE
    )


def test_pictures_are_of_the_labelling_network(toy, tmp_path):
    t = prepared(Prototypes, toy, tmp_path / "run")
    with torch.no_grad():
        t.method.model_ema.classifier.weight.zero_()
        t.method.model_ema.classifier.bias.copy_(torch.tensor([0.0, 50.0, 0.0]))
    panels = panels_of(t, raw_batch(2))
    assert (panels["pseudo-label"].label == 1).all()


def test_propagation_and_references_are_those_of_a_step(toy, tmp_path):
    """Check CorrMatch's label before and after propagation, and RankMatch's distinct pixels."""
    t = prepared(CorrMatch, toy, tmp_path / "corr", "method.thresh_init=0.45")
    with torch.no_grad():  # otherwise no pixel is confident
        t.method.model.classifier.weight *= 100
    panels = panels_of(t, raw_batch(2))
    before, after = panels["label of strong view 1"], panels["label after propagation"]
    assert before.shown.any() and not before.shown.all()
    assert (after.shown | ~before.shown).all(), "what was confident stays so"
    assert (after.shown & ~before.shown).any(), "and some regions become so"
    pasted = raw_batch(2)["unlabeled"]["box"][0] & ~before.shown
    assert pasted.any() and torch.equal(before.label[pasted], after.label[pasted])
    marks = panels["correlation with pixel 2"].marks
    h, w = marks.shape
    diagonal = [h * n // 4 * w + w * n // 4 for n in (1, 2, 3)]
    assert panels["three pixels"].marks.pixels.tolist() == [diagonal] * 2
    assert marks.pixels.shape == (2, 1) and marks.pixels[0] < np.prod(marks.shape)
    t = prepared(RankMatch, toy, tmp_path / "rank", "method.references=4")
    marks = panels_of(t, raw_batch(2, views=2))["reference pixels 1"].marks
    assert marks.pixels.shape == (2, 4)
    assert all(len(set(row)) == 4 for row in marks.pixels.tolist())


def test_references_are_pixels_of_the_deepest_map(toy, tmp_path):
    unet = "model={network: unet, widths: [4, 8, 8], dropout: [0, 0, 0], pretrained: none}"
    t = prepared(RankMatch, toy, tmp_path / "run", unet)
    with without_side_effects(t):
        batch = raw_batch(2, views=2)
        shape = t.method.model.features(batch["unlabeled"]["weak"])[-1].shape[-2:]
        assert t.method.panels(batch)["reference pixels 1"].marks.shape == shape


def test_previous_models_are_shown_as_soon_as_there_are_some(toy, tmp_path):
    t = prepared(PrevMatch, toy, tmp_path / "run")
    batch = raw_batch(2, views=2)
    assert "previous models" not in panels_of(t, batch)
    t.method.after_epoch(0, is_best=True)
    panels = panels_of(t, batch)
    differ, prev = panels["where they differ"], panels["previous models"]
    assert torch.equal(differ.shown, (prev.label != panels["pseudo-label"].label) & prev.shown)
    assert not differ.shown.any(), "the only previous model is the present one"
    other = (prev.label.flatten()[0] + 1) % 3
    with torch.no_grad():
        t.method.model.classifier.weight.zero_()
        t.method.model.classifier.bias.copy_(torch.eye(3)[other])
    panels = panels_of(t, batch)
    differ, prev = panels["where they differ"], panels["previous models"]
    assert torch.equal(differ.shown, (prev.label != other) & prev.shown) and differ.shown.any()


def test_a_resumed_run_writes_the_pictures_of_its_own_epochs_alone(toy, train, tmp_path):
    train(SupOnly, toy.argv(tmp_path / "run", *WITH_TWO))
    kept = {name: path.read_bytes() for name, path in files(tmp_path / "run/pictures").items()}
    (tmp_path / "run/previous.pth").replace(tmp_path / "run/latest.pth")
    for path in files(tmp_path / "run/pictures").values():
        path.write_bytes(b"old")
    train(SupOnly, toy.argv(tmp_path / "run", *WITH_TWO))
    for name, path in files(tmp_path / "run/pictures").items():
        assert path.read_bytes() == (b"old" if "epoch_001" in name else kept[name]), name


def test_a_folder_that_cannot_be_made_gives_one_error_line(toy, training_error, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/pictures").write_text("mine")
    assert "pictures/epoch_001" in training_error(SupOnly, toy.argv(tmp_path / "run", *WITH_TWO))
    assert (tmp_path / "run/pictures").read_text() == "mine"


@pytest.mark.parametrize(
    "bands, keys",
    [
        ("grey", {}),
        ([1, 2, 3, 6], {"image_range": [0, 2295], "rgb_bands": [3, 2, 1], "mean": [0.3] * 4}),
    ],
)
def test_any_number_of_bands(bands, keys, toy, tmp_path):
    banded(toy, bands, **keys)
    t = prepared(UniMatch, toy, tmp_path / "run", "log.pictures=1")
    found = take_pictures(t)
    assert list(found) == ["val_01", "unlabeled_01"]
    image = np.asarray(found["val_01"])[30 : 30 + 150, 10 : 10 + 200]
    grey = (image[..., 0] == image[..., 1]).all()
    assert grey == (bands == "grey"), "the bands that data.rgb_bands names"


def test_more_pictures_than_a_batch_has_images(toy, tmp_path):
    t = prepared(UniMatch, toy, tmp_path / "run", "log.pictures=5", "batch_size=4", "micro_batch=2")
    found = take_pictures(t)
    assert len(found) == 3 + 5, "three validation images, and as many unlabelled ones as asked for"
    assert len({sheet.tobytes() for sheet in found.values()}) == 8


def test_marks_of_a_map_lie_on_its_pixels(toy):
    """Corners of a map are corners of the picture, as in the networks' upsampling."""
    marks = Marks(torch.tensor([[0, 5, 14]]), (3, 5))
    image = torch.zeros(1, 3, 9, 9)
    config = load_config(toy.config)
    nothing, one = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    made = draw_panels({"a": Photo(image, marks=marks)}, 0, config.data, nothing, one).image("t")
    below_caption = np.asarray(made)[4 + 19 : 4 + 19 + PICTURE_SIDE, 4 : 4 + PICTURE_SIDE]
    found = (below_caption == MARK_COLOUR).all(-1)
    for x, y in ((3, 3), (3, 127), (252, 252)):
        assert found[y - 1 : y + 2, x - 1 : x + 2].any()
    assert not found[100:150, 100:150].any()


def test_both_dates_of_a_pair_are_shown(toy):
    config = load_config(toy.config, ["data.pair=column"])
    images = torch.cat([torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)], dim=1)
    unit = torch.ones(6, 1, 1)
    made = draw_panels({"a": Photo(images)}, 0, config.data, 0 * unit, unit).image("t")
    found = np.asarray(made)[50, [50, 4 + PICTURE_SIDE + 4 + 50]]
    assert found.tolist() == [[0, 0, 0], [255, 255, 255]]


@pytest.mark.parametrize("depth", [2, 3, 9])
def test_colours_are_principal_components(depth):
    """Compare with numpy's singular values of all pixels; components have no sign."""
    g = torch.Generator().manual_seed(depth)
    features = torch.randn(2, depth, 5, 4, generator=g) * 2 ** torch.arange(depth)[:, None, None]
    found = principal_colours(features)
    assert found.shape == (2, 3, 5, 4) and torch.equal(found, principal_colours(features))
    pixels = features.permute(0, 2, 3, 1).reshape(-1, depth).double().numpy()
    left, _, _ = np.linalg.svd(pixels - pixels.mean(0), full_matrices=False)
    shown = found.permute(0, 2, 3, 1).reshape(-1, 3).double().numpy() - 0.5
    for number in range(3):
        expected = np.zeros(40)
        if number < depth:
            expected = (left[:, number] * np.sqrt(40) / 4).clip(-0.5, 0.5)
            expected *= np.sign(expected @ shown[:, number])
        np.testing.assert_allclose(shown[:, number], expected, atol=1e-4)


def test_colours_of_features_without_a_finite_value():
    assert (principal_colours(torch.full((1, 4, 2, 2), torch.nan)) == 0.5).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_decoder_features_give_the_logits(family, toy):
    network = build_network(load_config(toy.config, [f"model={FAMILIES[family]}"]).model, 3).eval()
    *_, classifier = (module for module in network.modules() if isinstance(module, nn.Conv2d))
    network.auxiliary = nn.Conv2d(1, 1, 1)  # runs in training only
    images = torch.randn(2, 3, 64, 64)
    logits = classifier(decoder_features(network, images))
    torch.testing.assert_close(upsample(logits, (64, 64)), network(images))
