"""CorrMatch (Sun et al., CVPR 2024): regions of a correlation matrix, label propagation through
them, and class confidences for the dynamic threshold."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from util import distributed


def sample_rows(correlation: Tensor, count: int) -> Tensor:
    """Draw `count` pixels of the feature map with replacement: `[count]`."""
    return torch.randint(correlation.shape[1], (count,), device=correlation.device)


@torch.no_grad()
def region_maps(
    correlation: Tensor, rows: Tensor, shape: Sequence[int], size: Sequence[int]
) -> Tensor:
    """Return the region that correlates with each pixel of `rows` `[K]`: bool `[B, K, *size]`
    (CorrMatch, section 3.3)."""
    return correlation_maps(correlation, rows, shape, size) > 0.5  # 0/0: no region


def correlation_maps(
    correlation: Tensor, rows: Tensor, shape: Sequence[int], size: Sequence[int]
) -> Tensor:
    """Return the correlation of each pixel of `rows` `[K]` with all others: `[B, K, *size]`.

    A row of `correlation` `[B, hw, hw]` as a map of `shape` (h, w) is upsampled and scaled to
    [0, 1]; a constant one is 0/0.
    """
    maps = correlation[:, rows].unflatten(2, tuple(shape))
    maps = F.interpolate(maps, tuple(size), mode="bilinear", align_corners=True)
    low, high = (x[..., None, None] for x in maps.flatten(2).aminmax(dim=2))
    return maps.sub_(low).div_(high - low)


def mean_class_confidence(
    label: Tensor, conf: Tensor, valid: Tensor, num_classes: int, otherwise: Tensor
) -> Tensor:
    """Return the highest confidence of each class that occurs on any rank, averaged over classes
    (CorrMatch, section 3.4); `otherwise` where no pixel is valid."""
    highest = conf.new_zeros(num_classes)
    highest.scatter_reduce_(0, label.flatten(), (conf * valid).flatten(), "amax")
    distributed.all_reduce(highest, "max")
    occurring = (highest > 0).sum()
    return torch.where(occurring > 0, highest.sum() / occurring.clamp(min=1), otherwise)


@torch.no_grad()
def propagate_regions(
    label: Tensor, confident: Tensor, regions: Tensor, tau: Tensor, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Region propagation (CorrMatch, section 3.3): a region whose confident pixels mostly agree
    takes their class as a whole and becomes reliable.

    One region of every image at a time, in order, since later regions see the labels that
    earlier ones wrote; batched over images, without host synchronisation.

    Args:
        label: pseudo-labels `[B, H, W]`.
        confident: pixels above the threshold `[B, H, W]`, bool.
        regions: `[B, K, H, W]`, bool.
        tau: threshold, 0-d, both for the confident share of a region and for the agreement.

    Returns:
        the new labels and the reliable pixels, `[B, H, W]`.
    """
    shape = label.shape
    label, confident, regions = label.flatten(1), confident.flatten(1), regions.flatten(2)
    reliable = confident.clone()
    support = regions & confident[:, None]  # S
    area = pixels_in(support)
    enough = area / pixels_in(regions) >= tau  # an empty region is 0/0: not enough
    total = torch.where(enough & (area > 0), area, torch.inf)  # no share exceeds tau
    counts = torch.zeros(len(label), num_classes, device=label.device)
    for k in range(regions.shape[1]):
        counts.zero_().scatter_add_(1, label, support[:, k].float())
        count, winner = counts.max(1, keepdim=True)  # ties: the smallest index
        take = (count / total[:, k, None] > tau) & regions[:, k]
        label = torch.where(take, winner, label)
        reliable |= take
    return label.view(shape), reliable.view(shape)


def pixels_in(masks: Tensor) -> Tensor:
    """Count the True pixels of each mask `[..., N]`, float32 `[...]`.

    Partial sums in bytes are 20 times faster than integers on the CPU.
    """
    padded = F.pad(masks.view(torch.uint8), (0, -masks.shape[-1] % 128))
    return padded.unflatten(-1, (-1, 128)).sum(-1, dtype=torch.uint8).sum(-1, dtype=torch.float)
