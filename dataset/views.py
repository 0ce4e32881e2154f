"""Batches of views, made on the device: strong augmentation, CutMix, normalisation."""

import torch
from torch import Tensor

from dataset.batch import Batch, RawBatch, RawUnlabeled, Unlabeled
from dataset.transforms.strong import Rgb, box_masks, strong_view
from util.normalize import normalise, to_unit


def make_views(
    raw: RawBatch,
    mean: Tensor,
    std: Tensor,
    reversed_partners: bool = False,
    rgb: Rgb | None = (0, 1, 2),
) -> Batch:
    """Make the batch for the step of a method from raw samples on the device.

    Args:
        mean, std: `[C, 1, 1]`.
        reversed_partners: take partners from the batch in reversed order, not the previous image.
        rgb: the channels that are red, green and blue.
    """
    labeled = raw["labeled"]
    image = normalise(to_unit(labeled["image"].permute(0, 3, 1, 2)), mean, std)
    batch: Batch = {"labeled": {"image": image, "mask": labeled["mask"].long()}}
    if "unlabeled" in raw:
        batch["unlabeled"] = unlabeled_views(raw["unlabeled"], mean, std, reversed_partners, rgb)
    return batch


def unlabeled_views(
    raw: RawUnlabeled, mean: Tensor, std: Tensor, reversed_partners: bool, rgb: Rgb | None
) -> Unlabeled:
    """Make weak and strong views; a strong one shows its partner inside the CutMix box."""
    weak = to_unit(raw["image"].permute(0, 3, 1, 2))
    boxes = list(box_masks(raw["boxes"], weak.shape[-1]).unbind(1))
    out: Unlabeled = {
        "weak": normalise(weak, mean, std), "ignore": raw["ignore"], "box": boxes, "strong": []
    }  # fmt: skip
    if "partner" in raw:
        partner = raw["partner"]
        partner_weak = to_unit(partner["image"].permute(0, 3, 1, 2))
        out["partner"] = {"weak": normalise(partner_weak, mean, std), "ignore": partner["ignore"]}
    else:
        index = torch.arange(len(weak), device=weak.device)
        # Of an odd number of images, flipping would make the middle one its own partner.
        is_mirrored = reversed_partners and len(weak) % 2 == 0
        out["partner_index"] = index.flip(0) if is_mirrored else index.roll(1)
    images_per_sample = len(raw["strong_params"]) // max(len(boxes), 1)
    for number, box in enumerate(boxes):
        drawn = slice(number * images_per_sample, (number + 1) * images_per_sample)
        own = strong_view_of_sample(weak, raw["strong_params"][drawn], rgb)
        if "partner" in raw:
            partner_view = strong_view_of_sample(partner_weak, partner["strong_params"][drawn], rgb)
        else:
            partner_view = own[out["partner_index"]]
        out["strong"].append(normalise(torch.where(box[:, None], partner_view, own), mean, std))
    return out


def strong_view_of_sample(
    x: Tensor, params_per_image: list[dict[str, Tensor]], rgb: Rgb | None
) -> Tensor:
    """Make a strong view of images `[B, C, H, W]`, each image of a pair with its own parameters."""
    images = x.chunk(len(params_per_image), 1)
    strong = [
        strong_view(image, params, rgb)
        for image, params in zip(images, params_per_image, strict=True)
    ]
    return torch.cat(strong, 1) if len(strong) > 1 else strong[0]
