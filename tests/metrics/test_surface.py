"""HD95 and average surface distance equal a computation voxel by voxel."""

import csv
import json
import math
from itertools import product

import numpy as np
import pytest
import torch

import evaluate
from inference.volume_distances import VolumeDistances
from metrics.surface import surface_scores
from util.config.loading import load_config
from util.errors import UserError

CPU = torch.device("cpu")


def literal_surface(mask):
    """Return the voxels with one of six neighbours outside the mask."""
    inside = {tuple(voxel) for voxel in np.argwhere(mask)}
    steps = [step for step in product((-1, 0, 1), repeat=3) if sum(map(abs, step)) == 1]
    return [v for v in inside if any(tuple(np.add(v, step)) not in inside for step in steps)]


def literal_scores(predicted, target, spacing):
    a, b = literal_surface(predicted), literal_surface(target)
    if not (a and b):
        return math.nan, math.nan
    there, back = (
        [min(math.dist(np.multiply(p, spacing), np.multiply(q, spacing)) for q in to) for p in own]
        for own, to in ((a, b), (b, a))
    )
    return np.percentile(there + back, 95), (np.mean(there) + np.mean(back)) / 2


@pytest.mark.parametrize("spacing", [(1, 1, 1), (10, 1.5, 1.25)])
@pytest.mark.parametrize("seed", range(4))
def test_distances_of_random_volumes(spacing, seed):
    rng = np.random.default_rng(seed)
    blocks = rng.random((2, 3, 3, 3)) < 0.4
    predicted, target = (b.repeat(2, 0).repeat(3, 1).repeat(2, 2) for b in blocks)
    found = surface_scores(predicted, target, spacing)
    assert found == pytest.approx(literal_scores(predicted, target, spacing))


def test_distances_of_known_shapes():
    a, b = np.zeros((2, 1, 1, 12), bool)
    a[..., 2], b[..., 7] = True, True
    assert surface_scores(a, b, (1, 1, 2)) == (10, 10)
    assert surface_scores(a.astype(np.uint8), 255 * b.astype(np.uint8), (1, 1, 2)) == (10, 10)
    assert surface_scores(a, a, (1, 1, 1)) == (0, 0)
    assert all(map(math.isnan, surface_scores(a, np.zeros_like(a), (1, 1, 1))))


def test_slices_are_stacked_by_number_and_undefined_volumes_are_left_out():
    rng = np.random.default_rng(1)
    truth, found = rng.integers(0, 2, (2, 11, 5, 4))
    truth[3, :2] = 255
    found[-1] = 0  # a volume of one slice, where class 1 is missed
    truth[-1, 0] = 1
    names = [*(f"v1/s_{n}.png" for n in range(10)), "v2/s_0.png"]
    order = sorted(range(11), key=lambda n: names[n][::-1])
    volumes = [int(names[n].startswith("v2")) for n in order]
    images, sizes = [names[n] for n in order], [(4, 5)] * 11
    distances = VolumeDistances(images, sizes, volumes, 2, (3, 1, 1), CPU)
    for index, n in enumerate(order):
        distances.add(index, torch.tensor(found[n]), torch.tensor(truth[n]))
    means, count = distances.means()
    found[truth == 255] = 255
    first, second = (
        [literal_scores(found[part] == c, truth[part] == c, (3, 1, 1)) for c in range(2)]
        for part in (slice(10), slice(10, 11))
    )
    assert count.tolist() == [2, 1] and math.isnan(second[1][0])
    expected = [np.mean([first[0], second[0]], axis=0), first[1]]
    np.testing.assert_allclose(means.T, expected)


def test_slices_of_different_sizes_are_refused():
    with pytest.raises(UserError, match="a_2.png has 5x5 pixels; expected 5x4 as a_1.png"):
        VolumeDistances(["a_1.png", "a_2.png"], [(5, 4), (5, 5)], [0, 0], 2, None, CPU)


@pytest.mark.parametrize("numbers, pair", [
    ((1, 2, 10), ("s_2.", "s_10.")), ((1, 9, 10, 11), ("s_1.", "s_9.")),
    ((1, 2, 3), None), ((2, 5, 8), None), ((4,), None),
])  # fmt: skip
def test_a_gap_between_slices_is_a_warning(caplog, numbers, pair):
    names = [f"v/s_{number}.png" for number in numbers]
    VolumeDistances(names, [(4, 4)] * len(names), [0] * len(names), 2, None, CPU)
    assert ("stacked as neighbours" in caplog.text) == bool(pair)
    assert pair is None or all(name in caplog.text for name in pair)


def test_two_time_points_in_a_volume_are_a_warning(caplog):
    names = [f"p1_frame{frame}_s_{n}.png" for frame in (1, 9) for n in (1, 2, 3)]
    VolumeDistances(names, [(4, 4)] * 6, [0] * 6, 2, None, CPU)
    assert "p1_frame1_s_3.png and p1_frame9_s_1.png are stacked" in caplog.text


def test_evaluate_writes_them(trained, run, user_error, tmp_path):
    argv = ["--checkpoint", trained]
    assert "defines no volumes" in user_error(evaluate, *argv, "--surface-distance")
    pattern = "evaluation={volume_pattern: '(v.)', spacing: [2, 1, 1]}"
    outputs = ["--json", tmp_path / "scores.json", "--save-path", tmp_path / "out"]
    out = run(evaluate, *argv, "--surface-distance", *outputs, "--set", pattern).output()
    assert "surface distances in mm" in out
    cropped = ["evaluation.mode=center_crop", "crop_size=24"]
    out = run(evaluate, *argv, "--surface-distance", "--set", pattern, *cropped).output()
    assert "surface distances in mm" in out
    scores = json.loads((tmp_path / "scores.json").read_text())["surface_distance"]
    rows = list(csv.DictReader((tmp_path / "out/scores.csv").open()))
    for title in ("HD95 (mm)", "ASD (mm)", "ASD volumes"):
        assert [row[title] for row in rows] == ["" if v is None else str(v) for v in scores[title]]


def test_spacing_without_volumes_is_refused(toy):
    with pytest.raises(UserError, match="evaluation: spacing needs volume_pattern"):
        load_config(toy.config, ["evaluation.spacing=[1, 1, 1]"])
