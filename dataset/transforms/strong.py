"""Strong augmentation: drawn per sample in the data worker, applied to the batch on the device.

Colour jitter, greyscale, blur, CutMix, with the distributions of UniMatch's published settings.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

P_JITTER = 0.8
JITTER = 0.5  # brightness, contrast, saturation: factors in [1 - JITTER, 1 + JITTER]
HUE = 0.25  # shift in [-HUE, HUE] turns of the colour circle
P_BLUR = 0.5
SIGMA = (0.1, 2.0)  # pixels
RADIUS = int(3 * SIGMA[1] + 0.5)
P_CUTMIX = 0.5
BOX_AREA = (0.02, 0.4)  # of the crop
BOX_RATIO = (0.3, 1 / 0.3)  # height over width

Rgb = tuple[int, int, int]
"""The channels that are red, green and blue."""


def draw_strong(rng: np.random.Generator, p_grey: float) -> dict[str, Any]:
    """Draw one strong view: colour jitter (four operations in random order), greyscale,
    Gaussian blur with a uniform sigma, each with its probability; `p_grey`: that of greyscale."""
    jitter = rng.random() < P_JITTER
    factors = rng.uniform(1 - JITTER, 1 + JITTER, 3)
    hue = rng.uniform(-HUE, HUE)
    order = rng.permutation(4)
    grey = rng.random() < p_grey
    sigma = rng.uniform(*SIGMA) if rng.random() < P_BLUR else 0.0
    return {
        "factors": (factors if jitter else np.ones(3)).astype(np.float32),
        "hue": np.float32(hue if jitter else 0.0),
        "order": order,
        "grey": bool(grey),
        "sigma": np.float32(sigma),
    }


def draw_box(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a CutMix box (x0, y0, x1, y1) in a `size` crop, empty with probability 1 - P_CUTMIX.

    The area is uniform; aspect ratio and position are uniform and redrawn until the box fits.
    Redrawing the area too would favour small boxes."""
    if rng.random() >= P_CUTMIX:
        return np.zeros(4, dtype=np.int64)
    area = rng.uniform(*BOX_AREA) * size * size
    while True:
        ratio = rng.uniform(*BOX_RATIO)
        w, h = int(np.sqrt(area / ratio)), int(np.sqrt(area * ratio))
        x, y = int(rng.integers(size)), int(rng.integers(size))
        if x + w <= size and y + h <= size:
            return np.array([x, y, x + w, y + h])


def box_masks(boxes: Tensor, size: int) -> Tensor:
    """Convert boxes `[..., 4]` to masks, bool `[..., size, size]`, True inside."""
    x0, y0, x1, y1 = boxes[..., None, None].unbind(-3)
    i = torch.arange(size, device=boxes.device)
    return (i >= x0) & (i < x1) & (i[:, None] >= y0) & (i[:, None] < y1)


def grey(x: Tensor, rgb: Rgb | None) -> Tensor:
    """Replace the channels `rgb` of `x` `[B, C, H, W]` by their luma (ITU-R 601-2); without other
    channels, return `[B, 1, H, W]`."""
    if rgb is None:
        return x
    r, g, b = (x[:, channel] for channel in rgb)
    luma = (0.299 * r + 0.587 * g + 0.114 * b)[:, None]
    return luma if x.shape[1] == 3 else with_channels(x, rgb, luma)


def with_channels(x: Tensor, rgb: Rgb, changed: Tensor) -> Tensor:
    """Return a copy of `x` with the channels `rgb` replaced by `changed` `[B, 1 or 3, H, W]`."""
    x = x.clone()
    for channel, values in zip(rgb, changed.expand(-1, 3, -1, -1).unbind(1), strict=True):
        x[:, channel] = values  # indexing by `rgb` would wait for a copy to the device
    return x


def blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(other, x, factor).clamp(0, 1)


def shift_hue(x: Tensor, shift: Tensor, rgb: Rgb | None) -> Tensor:
    """Rotate the hue of the channels `rgb` by `shift` turns, keeping value and chroma."""
    if rgb is None:
        return x
    colour = torch.stack([x[:, channel] for channel in rgb], dim=1)
    value, low = colour.amax(1), colour.amin(1)
    chroma = value - low
    r, g, b = colour.unbind(1)
    sector = torch.where(
        value == r,
        (g - b) / chroma,
        torch.where(value == g, 2 + (b - r) / chroma, 4 + (r - g) / chroma),
    )
    sector = torch.where(chroma > 0, sector, 0) + 6 * shift.view(-1, 1, 1)
    # Each channel is value - chroma * ramp, the same ramp starting at 5, 3 and 1 sixths of a turn.
    channels = []
    for start in (5, 3, 1):
        k = (sector + start) % 6
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    shifted = torch.stack(channels, dim=1)
    return shifted if rgb == (0, 1, 2) and x.shape[1] == 3 else with_channels(x, rgb, shifted)


def colour_jitter(
    x: Tensor, factors: Tensor, hue: Tensor, order: Tensor, rgb: Rgb | None = (0, 1, 2)
) -> Tensor:
    """Apply brightness, contrast, saturation and hue to `x` `[B, C, H, W]` in [0, 1], to each image
    in its own `order` `[B, 4]`; `factors` `[B, 3]`, `hue` `[B]`, `rgb`: the colour channels."""
    brightness, contrast, saturation = factors[..., None, None, None].unbind(1)
    for slot in order.unbind(1):
        choices = (
            (x * brightness).clamp(0, 1),
            blend(x, grey(x, rgb).mean((2, 3), keepdim=True), contrast),
            blend(x, grey(x, rgb), saturation),
            shift_hue(x, hue, rgb),
        )
        x = torch.stack(choices)[slot, torch.arange(len(x), device=x.device)]
    return x


def gaussian_blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image `[C, H, W]` of `x` with its own `sigma` in pixels; 0: no blur."""
    b, c, h, w = x.shape
    i = torch.arange(-RADIUS, RADIUS + 1, device=x.device)
    kernel = torch.exp(-0.5 * (i / sigma.clamp(min=1e-3)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(c, 0)[:, None, None]
    flat = F.pad(x.reshape(1, b * c, h, w), (RADIUS,) * 4, mode="replicate")
    flat = F.conv2d(flat, kernel, groups=b * c)
    return F.conv2d(flat, kernel.transpose(2, 3), groups=b * c).view_as(x)


def strong_view(x: Tensor, params: dict[str, Tensor], rgb: Rgb | None = (0, 1, 2)) -> Tensor:
    """Return a strong view of images `x` `[B, C, H, W]` in [0, 1], before normalisation.

    Brightness, contrast and blur change all channels; hue, saturation and greyscale only `rgb`.
    """
    x = colour_jitter(x, params["factors"], params["hue"], params["order"], rgb)
    x = torch.where(params["grey"].view(-1, 1, 1, 1), grey(x, rgb).expand_as(x), x)
    return gaussian_blur(x, params["sigma"])
