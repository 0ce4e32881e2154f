"""Split files, samples, augmentations, loaders."""

import itertools
import math

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from scipy import stats

from dataset.cache import cache_bytes
from dataset.datasets import ImageSet, epoch_order
from dataset.loaders import (
    GlobalBatchSampler,
    ImageLoader,
    ProcessInfo,
    data_workers,
    steps_per_epoch,
    training_loader,
)
from dataset.split_files import read_split_file
from dataset.transforms.strong import (
    RADIUS,
    colour_jitter,
    draw_strong,
    gaussian_blur,
)
from dataset.transforms.weak import Geometry, _spans, draw_geometry, weak_geometry
from dataset.validation import read_splits
from dataset.views import make_views
from tests.conftest import write_sample
from util.config.loading import load_config
from util.errors import UserError

RNG = np.random.default_rng(0)


# Weak augmentation


@pytest.mark.parametrize("side", [24, 32, 48, 64, 96])
def test_the_filter_sees_all_that_it_would_see_of_the_whole(side):
    image = Image.fromarray(RNG.integers(0, 256, (48, 48, 3), dtype=np.uint8))
    whole = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR)).astype(int)
    for y, x in itertools.product((0, 2, 6), repeat=2):
        ours = Geometry((side, side), (x, y), 16, False).image(np.asarray(image)).numpy()
        assert np.abs(whole[y : y + 16, x : x + 16] - ours).max() <= 1


@pytest.mark.parametrize("size", [(500, 4000), (4000, 500), (8000, 1000)])
def test_no_more_is_resized_than_a_crop_needs(size):
    """Resize little more than the crop needs; source spans start at multiples of 16 pixels."""
    spans = _spans((2000, 2000), Geometry(size, (300, 300), 40, False))
    for span, side in zip(spans, size, strict=True):
        scale = 2000 / side
        needed = 40 * scale + 2 * max(scale, 1)
        assert needed <= span.end - span.first <= needed + 16 + 2 * math.ceil(scale) + 2


def test_scales_are_those_of_the_config(toy):
    data = load_config(toy.config, ["data.scale=[2, 2]"]).data
    assert weak_geometry(data)(RNG, (50, 40), 33).size == (100, 80)


def test_image_mask_and_padding_share_one_geometry():
    columns = np.arange(50, dtype=np.uint8)[None].repeat(40, 0)
    image = Image.fromarray(np.repeat(columns[..., None] * 5, 3, axis=2))
    for _ in range(200):
        geometry = draw_geometry(RNG, (50, 40), 33)
        mask = geometry.mask(Image.fromarray(columns))
        shown, padded = geometry.image(np.asarray(image)), geometry.padding()
        assert torch.equal(padded, mask == 255) and (shown[padded] == 0).all()
        assert shown.is_contiguous() and shown.shape == (33, 33, 3)
        apart = shown[~padded][:, 0] / 5 - mask[~padded]
        assert apart.abs().max() <= 1.5


def test_scale_crop_and_flip_follow_their_distributions():
    drawn = [draw_geometry(RNG, (100, 60), 40) for _ in range(6000)]
    long = np.array([g.size[0] for g in drawn])
    assert long.min() == 50 and long.max() == 200
    np.testing.assert_allclose(np.quantile(long, [0.25, 0.5, 0.75]), [87.5, 125, 162.5], atol=4)
    assert abs(np.mean([g.flip for g in drawn]) - 0.5) < 0.03
    sides = np.array([[g.size[1], g.size[0] * 60 / 100] for g in drawn])
    assert np.abs(sides[:, 0] - sides[:, 1]).max() <= 0.5
    x = np.array([g.corner[0] / (g.size[0] - 40) for g in drawn])
    assert abs(x.mean() - 0.5) < 0.02 and x.min() == 0 and x.max() == 1


# Strong augmentation


def assert_uniform(values, low, high):
    near = (high - low) / 200
    assert low <= values.min() < low + near and high - near < values.max() <= high
    assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-3


def test_strong_parameters_follow_their_distributions():
    drawn = [draw_strong(RNG, 0.2) for _ in range(6000)]
    jittered = np.array([d["hue"] != 0 for d in drawn])
    assert abs(jittered.mean() - 0.8) < 0.02
    assert abs(np.mean([d["grey"] for d in drawn]) - 0.2) < 0.02
    sigma = np.array([d["sigma"] for d in drawn])
    assert abs((sigma > 0).mean() - 0.5) < 0.02
    factors, hue = np.stack([d["factors"] for d in drawn]), np.array([d["hue"] for d in drawn])
    assert (factors[~jittered] == 1).all()
    assert_uniform(sigma[sigma > 0], 0.1, 2)
    assert_uniform(hue[jittered], -0.25, 0.25)
    for factor in factors[jittered].T:
        assert_uniform(factor, 0.5, 1.5)
    first = np.array([d["order"][0] for d in drawn])
    np.testing.assert_allclose(np.bincount(first) / len(first), 0.25, atol=0.03)


OPERATIONS = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)


def test_batched_colour_jitter_equals_torchvision_per_image():
    x = torch.rand(6, 3, 17, 19)
    x[0, :, 0] = 0.5  # grey pixels have no hue
    drawn = [draw_strong(RNG, 0.2) for _ in range(6)]
    factors, hue, order = (
        torch.from_numpy(np.stack([d[k] for d in drawn])) for k in ("factors", "hue", "order")
    )
    ours = colour_jitter(x, factors, hue, order)
    for i, d in enumerate(drawn):
        plain = x[i]
        for operation in d["order"]:
            amount = d["hue"] if operation == 3 else d["factors"][operation]
            plain = OPERATIONS[operation](plain, float(amount))
        # A ninth of a grey level: torchvision rounds the weights of luma.
        torch.testing.assert_close(ours[i], plain, atol=4e-4, rtol=0)


def test_batched_blur_equals_torchvision_per_image():
    x, sigma = torch.rand(4, 3, 30, 31), torch.tensor([0.0, 0.1, 1.0, 2.0])
    ours = gaussian_blur(x, sigma)
    torch.testing.assert_close(ours[0], x[0])
    assert RADIUS == 6  # three of the largest sigmas
    inner = slice(RADIUS, -RADIUS)  # torchvision reflects at the border, PIL and we replicate
    for i in (1, 2, 3):
        plain = TF.gaussian_blur(x[i], [2 * RADIUS + 1] * 2, [float(sigma[i])] * 2)
        torch.testing.assert_close(ours[i][:, inner, inner], plain[:, inner, inner])


# Loaders


def test_an_epoch_is_as_many_shuffles_as_it_takes():
    order = epoch_order(5, 12, seed=1, stream=0, epoch=3)
    assert sorted(order[:5]) == sorted(order[5:10]) == list(range(5)) and len(order) == 12
    assert (epoch_order(5, 12, 1, 0, 4) != order).any()
    assert (epoch_order.__wrapped__(5, 12, 1, 0, 3) == order).all()
    # Order at the time of writing: it must not change, so that runs stay reproducible.
    assert order.tolist() == [4, 1, 2, 0, 3, 0, 1, 4, 3, 2, 0, 3]


def test_processes_share_the_global_batch_and_go_on_at_a_step():
    alone = list(GlobalBatchSampler(3, 4, ProcessInfo(0, 1, 0, False)))
    two = [GlobalBatchSampler(3, 4, ProcessInfo(rank, 2, 0, False)) for rank in (0, 1)]
    assert alone == [a + b for a, b in zip(*two, strict=True)]
    two[1].first_step = 2
    assert list(two[1]) == [[(0, 10), (0, 11)]] and len(two[1]) == 3


@pytest.fixture
def loader(toy):
    def build(*overrides, strong_views=1, images=2, unlabeled=True):
        config = load_config(toy.config, overrides)
        lists = read_splits(config.data, unlabeled)
        room, process = cache_bytes(lists, config.data), ProcessInfo(0, 1, 0, False)
        return training_loader(config, lists, room, images, images, strong_views, process)

    return build


@pytest.mark.parametrize("labeled, unlabeled, images, steps", [
    (3, 5, 2, 2), (3, 5, 8, 1), (92, 10490, 8, 1311), (20, 3, 4, 5), (1, 1, 1, 1),
])  # fmt: skip
def test_steps_per_epoch(toy, labeled, unlabeled, images, steps):
    assert steps_per_epoch(load_config(toy.config), labeled, unlabeled, images) == steps
    fixed = load_config(toy.config, ["epoch_length=7"])
    assert steps_per_epoch(fixed, labeled, unlabeled, images) == 7


class Failing(ImageSet):
    """A set whose samples fail to load."""

    def __init__(self, failure):
        self.failure = failure

    def __len__(self):
        return 3

    def __getitem__(self, index):
        raise self.failure


def array_too_large():
    with pytest.raises(MemoryError) as found:
        np.zeros(2**59)
    return found.value


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "failure", [UserError("'a\nutil.errors.UserError: b.png': no such file"), array_too_large()]
)
def test_a_failure_reaches_the_main_process_unchanged(failure, workers):
    with pytest.raises(type(failure)) as found:
        list(ImageLoader(Failing(failure), ProcessInfo(0, 1, workers, False)))
    assert str(found.value) == str(failure)


@pytest.mark.parametrize("partner, views", [
    ("other", 1), ("other", 2), ("self", 1), ("batch", 2), ("flip", 1),
])  # fmt: skip
def test_views_of_a_batch(loader, partner, views):
    raw = next(iter(loader(f"cutmix_partner={partner}", strong_views=views)))
    assert raw["labeled"]["image"].dtype == torch.uint8
    assert ("partner" in raw["unlabeled"]) == (partner in ("other", "self"))
    batch = make_views(raw, torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.25))
    u = batch["unlabeled"]
    assert len(u["strong"]) == len(u["box"]) == views
    assert all(s.shape == u["weak"].shape and s.isfinite().all() for s in u["strong"])
    assert u["box"][0].dtype == torch.bool and u["ignore"].dtype == torch.bool
    assert batch["labeled"]["mask"].dtype == torch.int64


def test_strong_view_is_the_partners_inside_the_box(loader):
    raw = next(iter(loader()))
    mean, std = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    u = raw["unlabeled"]
    u["boxes"][:] = torch.tensor([5, 7, 20, 30])
    # Make strong views equal weak ones.
    for view in (*u["strong_params"], *u["partner"]["strong_params"]):
        view["factors"].fill_(1), view["hue"].zero_(), view["sigma"].zero_(), view["grey"].zero_()
    out = make_views(raw, mean, std)["unlabeled"]
    inside = torch.zeros(33, 33, dtype=torch.bool)
    inside[7:30, 5:20] = True
    strong, own, other = out["strong"][0], out["weak"], out["partner"]["weak"]
    torch.testing.assert_close(strong[..., inside], other[..., inside], atol=1e-5, rtol=0)
    torch.testing.assert_close(strong[..., ~inside], own[..., ~inside], atol=1e-5, rtol=0)


def test_a_single_image_finds_its_partner_elsewhere(loader, caplog):
    caplog.set_level("INFO", "semi")
    loader("cutmix_partner=flip"), loader("cutmix_partner=flip", images=1, unlabeled=False)
    assert not caplog.text, "nothing to say where partners are as asked for, or there are none"
    raw = next(iter(loader("cutmix_partner=flip", images=1)))
    assert raw["unlabeled"]["partner"]["image"].shape == (1, 33, 33, 3)
    assert "using independent partner images" in caplog.text


@pytest.mark.parametrize("cores, processes, workers", [
    (64, 1, 8), (9, 1, 8), (8, 1, 7), (8, 2, 3), (9, 2, 3), (2, 1, 1), (1, 1, 1), (4, 8, 1),
    (None, 1, 1),
])  # fmt: skip
def test_workers_are_the_cores_less_one(cores, processes, workers, toy, monkeypatch):
    config = load_config(toy.config, ["data.workers=null"])
    monkeypatch.setattr("os.cpu_count", lambda: 99)
    if cores:
        bound = {0: range(cores)}  # of this process
        monkeypatch.setattr("os.sched_getaffinity", bound.__getitem__, raising=False)
        assert data_workers(config, processes) == workers
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert data_workers(config, processes) == workers
    assert data_workers(load_config(toy.config, ["data.workers=0"]), processes) == 0


@pytest.mark.parametrize(
    "flip, mate", [(False, [2, 0, 1]), (True, [3, 2, 1, 0]), (True, [2, 0, 1])]
)
def test_partners_within_the_batch(loader, flip, mate):
    """No image is its own partner."""
    raw = next(iter(loader("cutmix_partner=batch", images=len(mate))))
    u = raw["unlabeled"]
    u["boxes"][:] = torch.tensor([5, 7, 20, 30])
    flipped = {"reversed_partners": True} if flip else {}
    out = make_views(raw, torch.zeros(3, 1, 1), torch.ones(3, 1, 1), **flipped)["unlabeled"]
    assert out["partner_index"].tolist() == mate
    u["boxes"][:] = 0
    apart = make_views(raw, torch.zeros(3, 1, 1), torch.ones(3, 1, 1), **flipped)["unlabeled"]
    mixed, whole = out["strong"][0], apart["strong"][0]
    assert torch.equal(mixed[..., 7:30, 5:20], whole[mate][..., 7:30, 5:20])
    assert torch.equal(mixed[..., :7, :], whole[..., :7, :])


def test_self_partner_is_another_view_of_the_same_image(toy, loader):
    for i in range(5):  # a unique colour for each image
        Image.new("RGB", (60, 40), (40 * i + 20, 0, 0)).save(toy.root / f"images/u{i}.jpg")
    for partner, same in (("self", True), ("other", False)):
        shown = [
            (b["unlabeled"]["image"].amax((1, 2, 3)), b["unlabeled"]["partner"]["image"])
            for b in loader(f"cutmix_partner={partner}", "epoch_length=20")
        ]
        equal = [(own - other.amax((1, 2, 3))).abs() < 9 for own, other in shown]
        assert torch.cat(equal).all() == same


def test_lists_as_published_and_with_spaces(toy):
    path = toy.path("unlabeled")
    line = write_sample(toy.root, "a b", mask=False)
    path.write_text(f"images/u0.jpg None\r\n\nimages/u1.jpg masks/none.png\n{line}\t\n")
    samples = read_split_file(path, masks=False).samples
    assert [s.image for s in samples] == ["images/u0.jpg", "images/u1.jpg", "images/a b.jpg"]
    assert all(s.mask is None for s in samples) and samples[-1].line == 4
