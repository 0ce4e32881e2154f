"""The plain data pipeline: whole images resized, then cropped; strong views by Pillow, one by one.

With the distributions of published settings, as `dataset.weak` and `dataset.strong` have them.
"""

import random

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import functional

from util.config import IGNORE

JITTER = transforms.ColorJitter(0.5, 0.5, 0.5, 0.25)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def weak(*images: tuple[Image.Image, Image.Resampling, int], crop: int) -> list[Image.Image]:
    """Random scale, padding, crop and flip, alike for all `(image, filter, fill)`."""
    w, h = images[0][0].size
    long = random.randint(int(max(w, h) * 0.5), int(max(w, h) * 2.0))
    if h > w:
        w, h = int(w * long / h + 0.5), long
    else:
        w, h = long, int(h * long / w + 0.5)
    resized = [image.resize((w, h), resample) for image, resample, _ in images]
    border = (0, 0, max(crop - w, 0), max(crop - h, 0))
    x, y = random.randint(0, max(w - crop, 0)), random.randint(0, max(h - crop, 0))
    flip, out = random.random() < 0.5, []
    for image, (_, _, fill) in zip(resized, images, strict=True):
        image = ImageOps.expand(image, border, fill).crop((x, y, x + crop, y + crop))
        out.append(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image)
    return out


def strong(image: Image.Image) -> Image.Image:
    """Colour jitter p 0.8, greyscale p 0.2, blur p 0.5."""
    if random.random() < 0.8:
        image = JITTER(image)
    if random.random() < 0.2:
        image = functional.to_grayscale(image, 3)
    if random.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))
    return image


def normalised(image: Image.Image) -> Tensor:
    return functional.normalize(functional.to_tensor(image), MEAN, STD)


def labeled_sample(image: Image.Image, mask: Image.Image, crop: int) -> tuple[Tensor, Tensor]:
    image, mask = weak(
        (image.convert("RGB"), Image.Resampling.BILINEAR, 0),
        (mask, Image.Resampling.NEAREST, IGNORE),
        crop=crop,
    )
    return normalised(image), torch.from_numpy(np.array(mask)).long()


def unlabeled_sample(image: Image.Image, crop: int, views: int) -> list[Tensor]:
    """The weak view, the strong ones, padding and CutMix boxes."""
    image = image.convert("RGB")
    nothing = Image.new("L", image.size)
    image, padding = weak(
        (image, Image.Resampling.BILINEAR, 0), (nothing, Image.Resampling.NEAREST, 254), crop=crop
    )
    pictures = [image, *(strong(image) for _ in range(views))]
    boxes = [_box(crop) for _ in range(views)]
    return [*map(normalised, pictures), torch.from_numpy(np.array(padding)).long(), *boxes]


def _box(size: int) -> Tensor:
    mask = torch.zeros(size, size)
    if random.random() < 0.5:
        return mask
    area = random.uniform(0.02, 0.4) * size * size
    while True:
        ratio = random.uniform(0.3, 1 / 0.3)
        w, h = int((area / ratio) ** 0.5), int((area * ratio) ** 0.5)
        x, y = random.randrange(size), random.randrange(size)
        if x + w <= size and y + h <= size:
            mask[y : y + h, x : x + w] = 1
            return mask
