"""Images as networks see them: the one place where pixels are normalised."""

import torch
from torch import Tensor

from util.config import Config


def mean_and_std(config: Config, device: torch.device) -> tuple[Tensor, Tensor]:
    """`[3, 1, 1]` each, for RGB images in [0, 1]."""
    mean, std = torch.tensor([config.data.mean, config.data.std], device=device)[..., None, None]
    return mean, std


def to_unit(image: Tensor) -> Tensor:
    """Bytes as floats in [0, 1]."""
    return image.to(torch.float, memory_format=torch.contiguous_format) / 255


def normalise(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Images `[..., 3, H, W]` in [0, 1] with zero mean and unit variance."""
    return (x - mean) / std
