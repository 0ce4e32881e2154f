"""Bootstrap intervals, compared with scipy's and with numbers computed by hand."""

import numpy as np
import pytest
import scipy.stats
import torch

from metrics.confusion import class_counts, iou_intervals


def confusions(images, seed=0, quality=0.8):
    """Return confusion matrices `[N, 3, 3]`; some images are much worse than others."""
    rng = np.random.default_rng(seed)
    right = rng.beta(4 * quality, 4 * (1 - quality), images)
    wrong = rng.integers(0, 50, (images, 3, 3))
    return torch.from_numpy(
        wrong + (right[:, None] * 500).astype(int)[:, :, None] * np.eye(3, dtype=int)
    )


def test_as_scipy():
    counts = class_counts(confusions(40))

    def miou(index):
        hit, predicted, true = counts[index].sum(0)
        return 100 * (hit / (predicted + true - hit)).mean().item()

    expected = scipy.stats.bootstrap(
        (np.arange(40),), lambda index: miou(torch.from_numpy(index.astype(int))),
        vectorized=False, method="percentile", n_resamples=4000, random_state=1,
    ).confidence_interval  # fmt: skip
    found = iou_intervals(counts)
    assert found.miou == pytest.approx((expected.low, expected.high), abs=0.6)
    assert found.units == 40 and expected.high - expected.low > 2


def test_counts_of_a_confusion_matrix():
    one = torch.tensor([[5, 2], [1, 7]])  # rows: truth
    assert class_counts(one).tolist() == [[5, 7], [6, 9], [7, 8]]


def test_equal_images_and_single_ones():
    one = class_counts(torch.tensor([[[6, 2], [0, 4]]]))
    found = iou_intervals(one.repeat(5, 1, 1))
    assert np.allclose(found.iou, [[75, 75], [100 * 4 / 6] * 2]) and len(set(found.miou)) == 1
    assert iou_intervals(one) is None


def test_absent_classes():
    """Skip a class in resamples without it; a class absent from all images counts 0."""
    rare = torch.zeros(6, 3, 3, dtype=torch.long)
    rare[:, 0, 0] = 10
    rare[0, 1, 1] = 10
    found = iou_intervals(class_counts(rare))
    assert found.iou == [(100, 100), (100, 100), (0, 0)]
    assert found.miou == pytest.approx((50, 200 / 3))


@pytest.mark.filterwarnings("error")
def test_images_without_labelled_pixels():
    counts = torch.zeros(6, 3, 2, dtype=torch.long)
    counts[0] = 10
    assert iou_intervals(counts).miou == (100, 100)
