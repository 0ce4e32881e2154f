"""Batches of views, made on the device: strong augmentation, CutMix, normalisation."""

import torch
from torch import Tensor

from dataset.batch import Batch, Labeled, RawBatch, RawLabeled, RawUnlabeled, Unlabeled
from dataset.transforms.strong import Rgb, box_masks, strong_view
from util.normalize import normalise, to_unit


def make_views(
    raw: RawBatch, mean: Tensor, std: Tensor, flip: bool = False, rgb: Rgb | None = (0, 1, 2)
) -> Batch:
    """Make the batch for the step of a method from raw samples on the device.

    Args:
        mean, std: `[C, 1, 1]`.
        flip: partners from the batch are at the mirrored position, not at the previous one.
        rgb: the channels that are red, green and blue.
    """
    batch: Batch = {"labeled": labeled_views(raw["labeled"], mean, std)}
    if "unlabeled" in raw:
        batch["unlabeled"] = unlabeled_views(raw["unlabeled"], mean, std, flip, rgb)
    return batch


def labeled_views(raw: RawLabeled, mean: Tensor, std: Tensor) -> Labeled:
    image = to_unit(raw["image"].permute(0, 3, 1, 2))
    return {"image": normalise(image, mean, std), "mask": raw["mask"].long()}


def unlabeled_views(
    raw: RawUnlabeled, mean: Tensor, std: Tensor, flip: bool, rgb: Rgb | None
) -> Unlabeled:
    """Make weak and strong views; a strong one shows its partner inside the CutMix box."""
    weak = to_unit(raw["image"].permute(0, 3, 1, 2))
    boxes = list(box_masks(raw["boxes"], weak.shape[-1]).unbind(1))
    out: Unlabeled = {
        "weak": normalise(weak, mean, std), "ignore": raw["ignore"], "box": boxes, "strong": []
    }  # fmt: skip
    if "partner" in raw:
        partner = raw["partner"]
        other = to_unit(partner["image"].permute(0, 3, 1, 2))
        out["partner"] = {"weak": normalise(other, mean, std), "ignore": partner["ignore"]}
    else:
        index = torch.arange(len(weak), device=weak.device)
        # Of an odd number of images, flipping would make the middle one its own partner.
        out["partner_index"] = index.flip(0) if flip and len(weak) % 2 == 0 else index.roll(1)
    dates = len(raw["views"]) // max(len(boxes), 1)
    for number, box in enumerate(boxes):
        drawn = slice(number * dates, (number + 1) * dates)
        own = strong_dates(weak, raw["views"][drawn], rgb)
        if "partner" in raw:
            theirs = strong_dates(other, partner["views"][drawn], rgb)
        else:
            theirs = own[out["partner_index"]]
        out["strong"].append(normalise(torch.where(box[:, None], theirs, own), mean, std))
    return out


def strong_dates(x: Tensor, views: list[dict[str, Tensor]], rgb: Rgb | None) -> Tensor:
    """Make a strong view of images `[B, C, H, W]`, each date with parameters of its own."""
    dates = x.chunk(len(views), 1)
    strong = [strong_view(date, view, rgb) for date, view in zip(dates, views, strict=True)]
    return torch.cat(strong, 1) if len(strong) > 1 else strong[0]
