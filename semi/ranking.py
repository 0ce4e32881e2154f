"""RankMatch (Mai et al., CVPR 2024): similarity of pixels to reference pixels, and its ranking."""

import itertools
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from util.precision import at_least_float32

RANKED_REFERENCES = 4
"""References whose order is compared, the nearest ones."""


def cutmix_features(own: Tensor, partner: Tensor, box: Tensor) -> Tensor:
    """Return the partner's features inside the `box` `[B, H, W]`, the image's own outside.

    Equals upsampling both to the box's size, mixing and downsampling (bilinear, aligned corners),
    but computes only the two rows and columns that downsampling reads: `[2h, 2w]` instead of
    `[H, W]`, 1/62 of the memory at crop 801 and stride 16. `partner`: features `[B, D, h, w]`, or
    indices in the batch `[B]`. Computed in float32.
    """
    with torch.autocast(own.device.type, enabled=False):
        own = at_least_float32(own)
        partner = own[partner] if partner.ndim == 1 else at_least_float32(partner)
        rows, up_y, down_y = _sampled_positions_and_matrices(own.shape[2], box.shape[1], own)
        columns, up_x, down_x = _sampled_positions_and_matrices(own.shape[3], box.shape[2], own)
        inside = box[:, rows][:, :, columns][:, None]
        mixed = torch.where(inside, up_y @ partner @ up_x.T, up_y @ own @ up_x.T)
        return down_y @ mixed @ down_x.T


def _sampled_positions_and_matrices(
    small: int, large: int, like: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the positions `[2 small]` that resizing `large` pixels to `small` reads, the matrix
    that upsamples to them `[2 small, small]`, and the matrix that downsamples them."""
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
    """Choose `count` pixels (at most all) that differ from each other: `[B, M]`, ascending.

    The first is random; each next one has the smallest maximal |cosine similarity| to the chosen
    ones. `features` `[B, D, h, w]`. No host synchronisation.
    """
    pixels = F.normalize(at_least_float32(features).flatten(2), dim=1)
    images, _, total = pixels.shape
    chosen = [torch.randint(total, (images,), device=features.device)]
    closest = pixels.new_zeros(images, total)
    for _ in range(min(count, total) - 1):
        last = pixels.gather(2, chosen[-1].view(-1, 1, 1).expand(-1, pixels.shape[1], 1))
        closest = torch.maximum(closest, (last.transpose(1, 2) @ pixels)[:, 0].abs())
        # A pixel is chosen once only, even where all pixels are equal.
        closest = closest.scatter(1, chosen[-1][:, None], float("inf"))
        chosen.append(closest.argmin(1))
    return torch.stack(chosen, dim=1).sort(dim=1).values


def similarity(features: Tensor, references: Tensor) -> Tensor:
    """Return the similarity of each pixel to the pixels `references` `[B, M]`: the softmax of dot
    products, `[B, hw, M]`."""
    pixels = at_least_float32(features).flatten(2)
    chosen = pixels.gather(2, references[:, None].expand(-1, pixels.shape[1], -1))
    return (pixels.transpose(1, 2) @ chosen).softmax(dim=-1)


def ranking_probabilities(q: Tensor, order: Tensor) -> Tensor:
    """Return the Plackett-Luce probability of each permutation of the columns `order` `[..., n]` of
    `q` `[..., M]`: `[..., n!]`."""
    top = order.shape[-1]
    permutations = torch.tensor(list(itertools.permutations(range(top))))
    permutations = permutations.to(q.device, non_blocking=True)  # no host synchronisation
    q = q.gather(-1, order)[..., permutations]
    remaining = q.flip(-1).cumsum(-1).flip(-1)
    # Factor by factor: the gradient of `prod` synchronises with the host.
    return reduce(torch.mul, (q / (remaining + 1e-10)).unbind(-1))


def ranking_loss(weak: Tensor, strong: Tensor, references: int) -> Tensor:
    """Return the divergence of the ranking by strong features `[B, D, h, w]` from the ranking by
    weak ones (without gradient), 0-d; computed in float32."""
    with torch.autocast(weak.device.type, enabled=False):
        pixels = choose_references(weak, references)
        q_w, q_s = similarity(weak, pixels), similarity(strong, pixels)
        order = q_w.topk(min(RANKED_REFERENCES, q_w.shape[-1]), dim=-1).indices
        target = ranking_probabilities(q_w, order)
        log_s = (ranking_probabilities(q_s, order) + 1e-10).log()
        return F.kl_div(log_s, target, reduction="none").mean()
