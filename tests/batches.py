"""Batches and networks for the steps of methods."""

import numpy as np
import torch
from torch import nn

from dataset.views import make_views

FAMILIES = {
    "deeplabv3plus": "{backbone: test_resnet, channels: 8, pretrained: none}",
    "convnext": "{backbone: test_convnext, output_stride: 32, channels: 8, pretrained: none}",
    "pspnet": "{network: pspnet, backbone: test_resnet, pretrained: none}",
    "dpt": "{network: dpt, backbone: test_vit, channels: 8, pretrained: none}",
    "unet": "{network: unet, widths: [4, 8, 8], dropout: [0, 0.1, 0.1], pretrained: none}",
}


def raw_batch(images, size=33, partner=True, views=1):
    """Return a batch as the device gets it, after its views are made."""
    g = np.random.default_rng(0)

    def crop():
        return torch.from_numpy(g.integers(0, 256, (images, size, size, 3), dtype=np.uint8))

    def unlabelled():
        ignore = torch.zeros(images, size, size, dtype=torch.bool)
        ignore[0, -5:] = True
        view = {
            "factors": torch.ones(images, 3),
            "hue": torch.zeros(images),
            "order": torch.arange(4).repeat(images, 1),
            "grey": torch.zeros(images, dtype=torch.bool),
            "sigma": torch.ones(images),
        }
        boxes = torch.tensor([[[3, 4, 20, 21]]]).repeat(images, views, 1)
        return {"image": crop(), "ignore": ignore, "strong_params": [view] * views, "boxes": boxes}

    mask = torch.from_numpy(g.integers(0, 3, (images, size, size), dtype=np.uint8))
    batch = {"labeled": {"image": crop(), "mask": mask}, "unlabeled": unlabelled()}
    if partner:
        batch["unlabeled"]["partner"] = unlabelled()
    return make_views(batch, torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.25))


class Local(nn.Module):
    """Logits that depend on a window's content and position in it, so that modes differ."""

    def forward(self, x):
        ramp = torch.linspace(0, 1, x.shape[-1]) + torch.linspace(0, 2, x.shape[-2])[:, None]
        return torch.cat([x, x.mean((2, 3), keepdim=True) + 0 * x[:, :1] + ramp], dim=1)


def batches(masks, predictions):
    """Yield batches of validation: images whose colours are the predictions, and their masks."""
    for i, (mask, prediction) in enumerate(zip(masks, predictions, strict=True)):
        image = np.repeat((prediction * 100).astype(np.uint8)[None, None], 3, axis=1)
        yield {
            "image": torch.from_numpy(image),
            "mask": torch.from_numpy(mask[None]),
            "index": torch.tensor([i]),
        }
