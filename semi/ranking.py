"""RankMatch's relations between pixels (Mai et al., CVPR 2024): which reference pixels each pixel
resembles most, and in which order.
"""

import itertools
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from util.precision import at_least_float32


def cutmix_features(own: Tensor, partner: Tensor, box: Tensor) -> Tensor:
    """The partner's features inside the `box` `[B, H, W]`, the image's own outside: `[B, D, h, w]`.

    Defined as upsampling both to the box's size, mixing and downsampling again (bilinear, aligned
    corners).  Downsampling reads two rows and columns for each one that it writes; only those are
    computed, so that memory follows `[2h, 2w]` instead of `[H, W]`: at crop 801 and stride 16,
    1/62 of it.  `partner` may also say where in the batch the partners are, `[B]`, as in `cutmix`.
    """
    partner = own[partner] if partner.ndim == 1 else partner
    rows, up_y, down_y = _resampling(own.shape[2], box.shape[1], own)
    columns, up_x, down_x = _resampling(own.shape[3], box.shape[2], own)
    inside = box[:, rows][:, :, columns][:, None]
    mixed = torch.where(inside, up_y @ partner @ up_x.T, up_y @ own @ up_x.T)
    return down_y @ mixed @ down_x.T


def _resampling(small: int, large: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The positions of a line of `large` pixels that resizing it to `small` reads `[2 small]`, the
    matrix that upsamples to them `[2 small, small]` and the one that downsamples them again."""
    whole = torch.arange(small, device=like.device)
    exact = whole * (large - 1) / max(small - 1, 1)
    low = exact.floor().long()
    read = torch.cat([low, (low + 1).clamp(max=large - 1)])
    position = read * (small - 1) / max(large - 1, 1)
    up = (1 - (position[:, None] - whole).abs()).clamp(min=0)
    share = exact - low
    down = torch.cat([torch.diag(1 - share), torch.diag(share)], dim=1)
    return read, up.to(like), down.to(like)


@torch.no_grad()
def choose_references(features: Tensor, count: int) -> Tensor:
    """Pixels that differ as much as possible from each other, `[B, M]` in ascending order, for
    `features` `[B, D, h, w]`; all pixels where there are fewer than `count`.

    The first is drawn; each next one is the pixel whose largest |cosine similarity| to those
    already chosen is smallest.  Without host synchronisation.
    """
    pixels = F.normalize(at_least_float32(features).flatten(2), dim=1)
    images, _, total = pixels.shape
    chosen = [torch.randint(total, (images,), device=features.device)]
    closest = pixels.new_zeros(images, total)
    for _ in range(min(count, total) - 1):
        last = pixels.gather(2, chosen[-1].view(-1, 1, 1).expand(-1, pixels.shape[1], 1))
        closest = torch.maximum(closest, (last.transpose(1, 2) @ pixels)[:, 0].abs())
        # A chosen pixel never comes again, even where all others are its equals.
        closest = closest.scatter(1, chosen[-1][:, None], float("inf"))
        chosen.append(closest.argmin(1))
    return torch.stack(chosen, dim=1).sort(dim=1).values


def resemblance(features: Tensor, references: Tensor) -> Tensor:
    """How much each pixel resembles the pixels `references` `[B, M]`: a distribution over these,
    `[B, hw, M]`, the softmax of dot products."""
    pixels = at_least_float32(features).flatten(2)
    chosen = pixels.gather(2, references[:, None].expand(-1, pixels.shape[1], -1))
    return (pixels.transpose(1, 2) @ chosen).softmax(dim=-1)


def ranking_probabilities(q: Tensor, order: Tensor) -> Tensor:
    """Plackett-Luce: the probability of each permutation of the columns `order` `[..., n]` of
    `q` `[..., M]`, `[..., n!]`; all permutations at once."""
    top = order.shape[-1]
    permutations = torch.tensor(list(itertools.permutations(range(top))))
    permutations = permutations.to(q.device, non_blocking=True)  # the host need not wait for it
    q = q.gather(-1, order)[..., permutations]
    remaining = q.flip(-1).cumsum(-1).flip(-1)
    # Factor by factor: the gradient of `prod` reads back how many of them are 0.
    return reduce(torch.mul, (q / (remaining + 1e-10)).unbind(-1))


def ranking_loss(weak: Tensor, strong: Tensor, references: int, top: int = 4) -> Tensor:
    """Divergence of the order in which strong features `[B, D, h, w]` rank their references from
    the order of the weak ones (without gradient), 0-d.  In float32 under autocast, too."""
    with torch.autocast(weak.device.type, enabled=False):
        pixels = choose_references(weak, references)
        q_w, q_s = resemblance(weak, pixels), resemblance(strong, pixels)
        order = q_w.topk(min(top, q_w.shape[-1]), dim=-1).indices
        target = ranking_probabilities(q_w, order)
        log_s = (ranking_probabilities(q_s, order) + 1e-10).log()
        return F.kl_div(log_s, target, reduction="none").mean()
