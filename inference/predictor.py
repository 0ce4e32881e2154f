"""Images through a network: whole, in sliding windows or resized; one view of them, or several."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from util.config.schema import Config
from util.normalize import mean_and_std, normalise, to_unit
from util.precision import autocast


def window_starts(size: int, window: int, stride: int, border: str) -> list[int]:
    """Where sliding windows begin along one side.

    `cut`: every `stride` while inside, the last ones smaller; `shift`: the last one moved back so
    that it ends at the border.
    """
    if border == "cut":
        return list(range(0, size, stride))
    starts = list(range(0, max(size - window, 0), stride))
    return [*starts, max(size - window, 0)]


def wants_windows(side: float, crop: int) -> bool:
    """Whether an image's longer side is too long for a network that has seen such crops: whole, it
    may not fit into memory beside it."""
    return side > 2.5 * crop and side > 1500


def config_for_size(config: Config, size: tuple[int, int]) -> Config:
    """The config, with sliding windows for an image (width, height) that would be predicted whole
    though it is much larger than the network has seen."""
    if config.evaluation.mode != "original" or not wants_windows(max(size), config.crop_size):
        return config
    evaluation = config.evaluation.model_copy(update={"mode": "sliding_window"})
    return config.model_copy(update={"evaluation": evaluation})


def predict_sliding(
    model: nn.Module, image: Tensor, window: int, border: str, batch: int
) -> Tensor:
    """Softmax summed over square windows, stride two thirds of their side: `[1, C, H, W]`.

    Windows of one size run together, at most `batch` at a time.
    """
    h, w = image.shape[-2:]
    stride = max(1, int(window * 2 / 3))
    by_size: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for y in window_starts(h, window, stride, border):
        for x in window_starts(w, window, stride, border):
            by_size.setdefault((min(window, h - y), min(window, w - x)), []).append((y, x))
    total: Tensor | None = None
    for (wh, ww), corners in by_size.items():
        for some in (corners[i : i + batch] for i in range(0, len(corners), batch)):
            crops = torch.cat([image[..., y : y + wh, x : x + ww] for y, x in some])
            scores = predict_whole(model, crops).softmax(dim=1)
            if total is None:
                total = image.new_zeros(1, scores.shape[1], h, w)
            for (y, x), score in zip(some, scores, strict=True):
                total[0, :, y : y + wh, x : x + ww] += score
    assert total is not None
    return total


def predict_whole(model: nn.Module, image: Tensor) -> Tensor:
    """Logits at the image's own size; a network made of patches sees the nearest multiple."""
    patch = getattr(model, "patch_size", 1)
    h, w = image.shape[-2:]
    fit = [max(patch, int(side / patch + 0.5) * patch) for side in (h, w)]
    if fit == [h, w]:
        return model(image).float()
    resized = F.interpolate(image, fit, mode="bilinear", align_corners=True)
    logits = model(resized).float()
    return F.interpolate(logits, (h, w), mode="bilinear", align_corners=True)


def predict_resized(model: nn.Module, image: Tensor, size: int) -> Tensor:
    """The image as a `size` square, logits resized back (medical)."""
    resized = F.interpolate(image, (size, size), mode="bilinear", align_corners=False)
    logits = predict_whole(model, resized)
    return F.interpolate(logits, image.shape[-2:], mode="bilinear", align_corners=False)


def predict_once(model: nn.Module, image: Tensor, config: Config, mode: str) -> Tensor:
    """Class scores `[B, C, H, W]` of an image as it is: logits, or sums over sliding windows."""
    if mode == "sliding_window":
        border, batch = config.evaluation.window_border, config.evaluation.window_batch
        return predict_sliding(model, image, config.crop_size, border, batch)
    if mode == "resize":
        return predict_resized(model, image, config.crop_size)
    return predict_whole(model, image)


def predict_scaled(
    model: nn.Module, image: Tensor, config: Config, mode: str, scale: float
) -> Tensor:
    """Probabilities, at the image's own size, of the image at another scale.

    Resized with a filter that does not alias, as training's images are; of squares (`resize`) the
    square is.
    """
    if mode == "resize":
        side = max(1, round(scale * config.crop_size))
        return predict_resized(model, image, side).softmax(dim=1)
    size = [max(1, round(scale * side)) for side in image.shape[-2:]]
    view = F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)
    scores = to_probabilities(predict_once(model, view, config, mode), mode != "sliding_window")
    return F.interpolate(scores, image.shape[-2:], mode="bilinear", align_corners=False)


def is_augmented(config: Config) -> bool:
    """Whether the config asks for several views of an image: test-time augmentation."""
    return config.evaluation.flip or config.evaluation.scales != (1.0,)


def predict(model: nn.Module, image: Tensor, config: Config, mode: str) -> Tensor:
    """Class scores `[B, C, H, W]` of normalised images `[B, C, H, W]`: logits, or sums of
    probabilities over sliding windows and over views, as `has_logits` says.

    B is 1 in sliding windows.
    """
    if not is_augmented(config):
        return predict_once(model, image, config, mode)
    total: Tensor | None = None
    for scale in config.evaluation.scales:
        for mirrored in (False, True) if config.evaluation.flip else (False,):
            view = image.flip(-1) if mirrored else image
            scores = predict_scaled(model, view, config, mode, scale)
            scores = scores.flip(-1) if mirrored else scores
            total = scores if total is None else total + scores
    assert total is not None
    return total


def has_logits(config: Config, mode: str) -> bool:
    """Whether `predict` returns logits, else sums of probabilities."""
    return mode != "sliding_window" and not is_augmented(config)


def to_probabilities(scores: Tensor, logits: bool) -> Tensor:
    """Logits, or sums of probabilities, `[..., C, H, W]`, as what sums to 1."""
    return scores.softmax(dim=-3) if logits else scores / scores.sum(dim=-3, keepdim=True)


class Prediction(NamedTuple):
    """What a network says of an image."""

    scores: Tensor
    """`[C, H, W]`."""
    logits: bool
    """Whether the scores are logits, else sums of probabilities."""

    @property
    def mask(self) -> np.ndarray:
        """Class indices `[H, W]`, uint8."""
        return self.scores.argmax(0).byte().cpu().numpy()

    @property
    def probabilities(self) -> Tensor:
        """`[C, H, W]`, of sum 1."""
        return to_probabilities(self.scores, self.logits)


def predict_image(
    model: nn.Module, image: np.ndarray, config: Config, device: torch.device
) -> Prediction:
    """What `model`, in eval mode, says of an image `[H, W, C]`, predicted as the config says."""
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    scores = predict_batch(model, x, config, config.evaluation.mode, device)
    return Prediction(scores[0], has_logits(config, config.evaluation.mode))


@torch.no_grad()
def predict_batch(
    model: nn.Module, images: Tensor, config: Config, mode: str, device: torch.device
) -> Tensor:
    """As `predict`, of images as they are read: uint8, or floats in [0, 1]."""
    mean, std = mean_and_std(config, device)
    with autocast(device, config.precision):
        return predict(model, normalise(to_unit(images.to(device)), mean, std), config, mode)


def predict_mask(
    model: nn.Module, image: np.ndarray, config: Config, device: torch.device
) -> np.ndarray:
    """Class indices `[H, W]`, uint8, of an image `[H, W, C]`; `model` is in eval mode."""
    return predict_image(model, image, config, device).mask
