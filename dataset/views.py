"""Batches of views, made on the device: strong augmentation, CutMix, normalisation."""

from typing import Any

import torch
from torch import Tensor

from dataset.strong import box_masks, normalise, strong_view


def make_views(
    batch: dict[str, Any], mean: Tensor, std: Tensor, flip: bool = False
) -> dict[str, Any]:
    """Raw samples on the device -> what a method's step sees; `mean`, `std` `[3, 1, 1]`.

    In: `labeled` {image uint8 `[B, H, W, 3]`, mask uint8 `[B, H, W]`} and, if the method uses
    them, `unlabeled` {image, ignore bool `[B, H, W]`, views: a list of drawn parameters, boxes
    `[B, V, 4]`, partner: {image, ignore, views}}.

    Out: `labeled` {image, mask long}; `unlabeled` {weak, ignore, strong: V CutMixed strong views
    `[B, 3, H, W]`, box: V masks `[B, H, W]`, partner: {weak, ignore}}, images normalised.
    Without a partner the batch itself is mixed in, rolled by one or flipped: then `mate` `[B]`
    says where in the batch each image's partner is.
    """

    def unit(image: Tensor) -> Tensor:
        channels_first = image.permute(0, 3, 1, 2)
        return channels_first.to(torch.float, memory_format=torch.contiguous_format) / 255

    labeled = batch["labeled"]
    out: dict[str, Any] = {
        "labeled": {
            "image": normalise(unit(labeled["image"]), mean, std),
            "mask": labeled["mask"].long(),
        }
    }
    if "unlabeled" not in batch:
        return out
    own = batch["unlabeled"]
    partner = own.get("partner")
    weak = unit(own["image"])
    other = unit(partner["image"]) if partner else None
    mate = torch.arange(len(weak), device=weak.device)
    mate = mate.flip(0) if flip else mate.roll(1)
    boxes = list(box_masks(own["boxes"], weak.shape[-1]).unbind(1))
    strong = []
    for number, (view, box) in enumerate(zip(own["views"], boxes, strict=True)):
        mine = strong_view(weak, view)
        if partner is None or other is None:
            theirs = mine[mate]
        else:
            theirs = strong_view(other, partner["views"][number])
        strong.append(normalise(torch.where(box[:, None], theirs, mine), mean, std))
    out["unlabeled"] = {
        "weak": normalise(weak, mean, std),
        "ignore": own["ignore"],
        "strong": strong,
        "box": boxes,
    }
    if partner is None or other is None:
        out["unlabeled"]["mate"] = mate
    else:
        out["unlabeled"]["partner"] = {
            "weak": normalise(other, mean, std),
            "ignore": partner["ignore"],
        }
    return out
