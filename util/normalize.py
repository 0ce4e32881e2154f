"""Images as networks see them: the one place where pixels are normalised."""

import torch
from torch import Tensor

from util.config.schema import Config


def mean_and_std(config: Config, device: torch.device) -> tuple[Tensor, Tensor]:
    """`[C, 1, 1]` each, for images in [0, 1]; the same for all dates."""
    values = torch.tensor([config.data.mean, config.data.std], device=device)
    mean, std = values.repeat(1, config.data.dates)[..., None, None]
    return mean, std


def to_unit(image: Tensor) -> Tensor:
    """Bytes as floats in [0, 1]; floats are there already."""
    values = image.to(torch.float, memory_format=torch.contiguous_format)
    return values / 255 if image.dtype == torch.uint8 else values


def normalise(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Images `[..., C, H, W]` in [0, 1] with zero mean and unit variance."""
    return (x - mean) / std
