"""Random draws of the training set, compared with those of the published pipeline.

`views_reference.json` has means, standard deviations and deciles of 26 statistics of 5000 samples
of CamVid at crop 321, and only numbers: none of them comes from this code.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from dataset.cache import DecodedSamples
from dataset.datasets import UNLABELED, TrainingSet, epoch_order
from dataset.folders import read_samples
from dataset.reader import Reader
from dataset.transforms.weak import Geometry
from dataset.views import make_views
from tests.conftest import REPOSITORY
from util.config.data import Data, Folders
from util.config.schema import Config

REFERENCE = json.loads((REPOSITORY / "tests/golden_data/views_reference.json").read_text())
CAMVID = Path(os.environ.get("CAMVID", REPOSITORY.parent / "shared/data/camvid"))

ENOUGH = 1500
"""Number of samples from which on deciles vary by less than 0.15 standard deviations."""


def training_set(images, root, samples):
    """Build a run's training set for these images; its labelled images are not read."""
    data = Data(name="camvid", root=root, classes=["a", "b"], val=Path("unused"))
    unlabeled = read_samples(images, data, masks=False).samples
    opened = (
        DecodedSamples(Reader(data), [], True),
        DecodedSamples(Reader(data), unlabeled, False, 2**22),
    )
    config = Config(data=data, crop_size=REFERENCE["crop"], epochs=1, batch_size=2)
    return TrainingSet(config, *opened, length=samples, strong_views=2, cutmix_partner="batch")


def statistics_of_a_view(x, shown):
    """Compute the reference's statistics of an image `[3, H, W]` over the `shown` pixels."""
    pixels = x[:, shown]
    chroma = pixels.amax(0) - pixels.amin(0)
    rises = (x[:, 1:] - x[:, :-1]).abs()[:, shown[1:] & shown[:-1]]
    return {
        "mean": pixels.mean(), "std": pixels.std(), "chroma": chroma.mean(), "dy": rises.mean(),
        "grey share": float(chroma.max() <= 1 / 254),
    }  # fmt: skip


def statistics_of_a_box(box, crop):
    x0, y0, x1, y1 = box.tolist()
    area = (x1 - x0) * (y1 - y0) / crop**2
    if not area:
        return {"there": 0, "area": 0}
    aspect = np.log((y1 - y0) / (x1 - x0))
    x = (x0 + x1 - 1) / 2 / crop
    return {"there": 1, "area": area, "area if there": area, "aspect": aspect, "x": x}


def note(found, prefix, values):
    for name, value in values.items():
        found.setdefault(f"{prefix} {name}", []).append(float(value))


def drawn(training, samples):
    """Yield statistics that need no pixels (boxes, frequencies, padding), and raw samples."""
    found, order = {}, epoch_order(len(training.unlabeled), samples, 0, UNLABELED, 0)
    for position, index in enumerate(order):
        raw = training.unlabeled_sample(index, UNLABELED, 0, position)
        found.setdefault("ignore", []).append(raw["ignore"].float().mean().item())
        for number, (view, box) in enumerate(zip(raw["strong_params"], raw["boxes"], strict=True)):
            note(found, f"s{number + 1}", {"grey share": view["grey"]})
            note(found, f"box{number}", statistics_of_a_box(box, REFERENCE["crop"]))
        yield found, raw


def looked_at(raws):
    """Return statistics of the views that the device makes of raw samples, before CutMix."""
    found = {}
    for raw in DataLoader(raws, batch_size=2):  # small batches stay in the processor's caches
        raw["boxes"].zero_()
        labeled = {"image": raw["image"][:1, :1, :1], "mask": raw["ignore"][:1, :1, :1]}
        batch = {"labeled": labeled, "unlabeled": raw}
        u = make_views(batch, torch.zeros(3, 1, 1), torch.ones(3, 1, 1))["unlabeled"]
        for b, ignore in enumerate(u["ignore"]):
            for prefix, x in zip(("weak", "s1", "s2"), (u["weak"], *u["strong"]), strict=True):
                note(found, prefix, statistics_of_a_view(x[b], ~ignore))
    return found


def differences(found):
    """Return the statistics that differ: means by more than 4 standard errors, deciles by more than
    0.15 standard deviations.  With few samples, or equal deciles, the tolerance of deciles grows by
    two standard errors of the share of samples below each decile."""
    apart = {}
    for name, values in found.items():
        there, values = REFERENCE["statistics"][name], np.array(values)
        error = np.sqrt(there["std"] ** 2 / there["count"] + values.var() / len(values))
        if not abs(values.mean() - there["mean"]) <= 4 * error:  # NaN differs, too
            apart[name] = f"mean {values.mean():.4f}, published {there['mean']:.4f}"
        at, deciles = np.arange(1, 10) / 10, np.array(there["deciles"])
        slack = 2 * (len(values) < ENOUGH or len(set(deciles)) < len(at))
        unsure = slack * np.sqrt(at * (1 - at) * (1 / len(values) + 1 / there["count"]))
        low, high = (np.quantile(values, at + sign * unsure) for sign in (-1, 1))
        margin = 0.15 * there["std"]
        if not ((deciles >= low - margin) & (deciles <= high + margin)).all():
            apart[f"{name}, deciles"] = np.quantile(values, at).tolist()
    return apart


def test_views_and_boxes_are_those_of_the_published_pipeline():
    if not CAMVID.is_dir():
        pytest.skip("needs CamVid's images; the variable CAMVID names their folder")
    training = training_set(CAMVID / "splits/46/unlabeled.txt", CAMVID, 240)
    found, raws = zip(*drawn(training, 240), strict=True)
    both = found[-1] | looked_at(raws)
    assert both.keys() == REFERENCE["statistics"].keys()
    assert differences(both) == {}


def test_boxes_frequencies_and_padding_need_no_photographs(tmp_path, monkeypatch):
    """Draw more samples without reading pixels: boxes and padding depend on image sizes only."""
    for number in range(4):
        Image.new("RGB", (480, 360)).save(tmp_path / f"{number}.png")
    training = training_set(Folders(images=Path()), tmp_path, 3000)
    monkeypatch.setattr(Geometry, "image", lambda *_: None)
    *_, (found, _) = drawn(training, 3000)
    assert len(found) == 13 and differences(found) == {}
