"""Images as networks see them: the one place where pixels are normalised."""

import torch
from torch import Tensor

from util.config.schema import Config


def mean_and_std(config: Config, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation, `[C, 1, 1]` each, for images in [0, 1]."""
    values = torch.tensor([config.data.mean, config.data.std], device=device)
    mean, std = values.repeat(1, config.data.dates)[..., None, None]
    return mean, std


def to_unit(image: Tensor) -> Tensor:
    """Convert bytes to floats in [0, 1]; return floats unchanged; raises `TypeError` for others."""
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise TypeError(f"image: found {image.dtype}, expected uint8, or floats in [0, 1]")
    values = image.to(torch.float, memory_format=torch.contiguous_format)
    return values / 255 if image.dtype == torch.uint8 else values


def normalise(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Normalise images `[..., C, H, W]` in [0, 1] to zero mean and unit variance."""
    return (x - mean) / std
