"""Compare rotations, flips and plain resize with scipy, as the published code calls it."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from dataset.transforms.rotate import Rotation, draw_rotation

RNG = np.random.default_rng(0)
CASES = [
    *(Rotation(64, quarters, axis) for quarters in range(4) for axis in (0, 1)),
    *(Rotation(64, angle=angle) for angle in (-20, -7, -1, 3, 19)),
    Rotation(64),
    Rotation(20, angle=11),
    Rotation(20),
]


def literally(pixels, r):
    """Return the augmented array `[H, W]` by scipy at order 0 (UniMatch, medical)."""
    if r.axis is not None:
        pixels = np.flip(np.rot90(pixels, r.quarters), r.axis)
    elif r.angle:
        pixels = ndimage.rotate(pixels, r.angle, order=0, reshape=False)
    return ndimage.zoom(pixels, (r.crop / pixels.shape[0], r.crop / pixels.shape[1]), order=0)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("size", [(40, 33), (64, 64), (21, 90)])
def test_every_pixel_is_scipys(case, size):
    pixels = RNG.integers(1, 250, size, dtype=np.uint8)
    expected = literally(pixels, case)
    image = case.image(np.stack([pixels, pixels // 2], -1))
    mask = case.mask(Image.fromarray(pixels))
    assert image.shape == (case.crop, case.crop, 2) and image.is_contiguous()
    # A sample half-way between two pixels, or exactly on the border, may fall to either side.
    assert (mask.numpy() != expected).mean() < 0.004
    assert torch.equal(image[..., 0], mask) and torch.equal(image[..., 1], mask // 2)
    assert not case.padding().any() and case.padding().shape == mask.shape
    if case.angle and size == (64, 64):
        assert (mask == 0).any(), "corners come from outside"


def test_the_border_belongs_to_the_image():
    turned = Rotation(3, angle=10).image(np.full((1, 1, 1), 7, np.uint8))
    assert turned.tolist() == [[[7]] * 3] * 3


def test_floats_stay_floats():
    image = RNG.random((9, 8, 1), np.float32)
    turned = Rotation(8, angle=5).image(image)
    assert turned.dtype == torch.float32
    assert np.isin(turned.numpy(), [*image.ravel(), 0]).all()


def test_draws_follow_their_distributions():
    drawn = [draw_rotation(RNG, (9, 9), 8) for _ in range(8000)]
    flipped = [r for r in drawn if r.axis is not None]
    turned = [r.angle for r in drawn if r.angle]
    assert abs(len(flipped) / 8000 - 0.5) < 0.02
    assert abs(len(turned) / 8000 - 0.25 * 39 / 40) < 0.02
    assert (min(turned), max(turned)) == (-20, 19)
    assert all(r.angle == 0 for r in flipped)
    shares = np.bincount([2 * r.quarters + r.axis for r in flipped]) / len(flipped)
    np.testing.assert_allclose(shares, 1 / 8, atol=0.02)
