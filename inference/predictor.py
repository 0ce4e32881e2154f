"""Class probabilities of images: whole, in sliding windows or resized; with test-time augmentation;
masks and measures of uncertainty."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from inference.inputs import wants_windows
from util.config.schema import Config
from util.config.types import IGNORE
from util.errors import UserError
from util.normalize import mean_and_std, normalise, to_unit
from util.precision import autocast

LogitFunction = Callable[[Tensor], Tensor]
"""A network or an exported function: normalised images `[B, C, H, W]` to logits."""


class Predictor:
    """Class probabilities and masks of images, predicted as the config's `evaluation` says.

    Args:
        network: in eval mode, on `device`; it may have a `size_multiple`.
        mode: replaces `evaluation.mode`; `center_crop` predicts the image it is given, like
            `original`.
    """

    def __init__(
        self, network: LogitFunction, config: Config, device: torch.device, mode: str | None = None
    ):
        self.network, self.config, self.device = network, config, device
        self.mode = config.evaluation.mode if mode is None else mode
        self.mean, self.std = mean_and_std(config, device)

    def mask(self, image: np.ndarray) -> np.ndarray:
        """Return the class indices `[H, W]`, uint8, of an image `[H, W, C]`."""
        return to_mask(self.probabilities(image))

    def probabilities(self, image: np.ndarray, name: object = "image") -> Tensor:
        """Return the class probabilities `[C, H, W]` of an image `[H, W, C]`: uint8, or float in
        [0, 1].

        Raises `UserError`, which calls the image `name`, where they are not finite.
        """
        x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        return self.require_finite(self.predict_batch(x)[0], name)

    def require_finite(self, probabilities: Tensor, name: object) -> Tensor:
        """Return the probabilities of an image; raises `UserError` where they are not finite."""
        if has_nan(probabilities):
            raise nonfinite_outputs_error(name, self.config.precision)
        return probabilities

    @torch.no_grad()
    def predict_batch(self, images: Tensor) -> Tensor:
        """Return the class probabilities `[B, C, H, W]` of images `[B, C, H, W]`: uint8, or float
        in [0, 1]. B must be 1 in mode sliding_window."""
        x = normalise(to_unit(images.to(self.device, non_blocking=True)), self.mean, self.std)
        with autocast(self.device, self.config.precision):
            return self.predict_normalised(x)

    def predict_normalised(self, x: Tensor) -> Tensor:
        """Return the class probabilities `[B, C, H, W]` of normalised images `[B, C, H, W]`,
        averaged over the views of test-time augmentation (`evaluation.flip`, `.scales`)."""
        evaluation = self.config.evaluation
        if not evaluation.flip and evaluation.scales == (1.0,):
            return self._predict_view(x)
        total = x.new_zeros(())
        for scale in evaluation.scales:
            total = total + self._predict_scaled(x, scale)
            if evaluation.flip:
                total = total + self._predict_scaled(x.flip(-1), scale).flip(-1)
        return total / total.sum(1, keepdim=True)

    def _predict_view(self, x: Tensor) -> Tensor:
        """Return the probabilities of one view, at its own size."""
        crop = self.config.crop_size
        if self.mode == "resize":
            return logits_of_square(self.network, x, crop).softmax(1)
        predict = partial(probabilities_of, self.network)
        if self.mode == "sliding_window":
            evaluation = self.config.evaluation
            return predict_sliding(
                predict, x, crop, evaluation.window_border, evaluation.window_batch
            )
        return predict(x)

    def _predict_scaled(self, x: Tensor, scale: float) -> Tensor:
        """Return the probabilities of the image at another scale, resized to its own size.

        The image is resized with antialiasing, as in training; `resize` scales its square instead.
        """
        if self.mode == "resize":
            side = max(1, round(scale * self.config.crop_size))
            return logits_of_square(self.network, x, side).softmax(1)
        size = [max(1, round(scale * side)) for side in x.shape[-2:]]
        view = F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
        probabilities = self._predict_view(view)
        return F.interpolate(probabilities, x.shape[-2:], mode="bilinear", align_corners=False)


def has_nan(probabilities: Tensor) -> Tensor:
    """Return True on the device for NaN in probabilities: some logits were NaN or infinite."""
    return probabilities.sum().isnan()


def nonfinite_outputs_error(images: object, precision: str) -> UserError:
    """Return the error for `images` whose probabilities are not finite."""
    return UserError(
        f"{images}: the network's outputs are not finite (precision: {precision}). Fix: "
        "precision: float32 or bfloat16 if it is float16, else train with a lower optimizer.lr"
    )


def to_mask(probabilities: Tensor, nodata_mask: np.ndarray | None = None) -> np.ndarray:
    """Return the most probable class `[H, W]`, uint8, of probabilities `[C, H, W]`; 255 at the
    pixels without data, `nodata_mask` `[H, W]`, bool."""
    mask = probabilities.argmax(0).byte().cpu().numpy()
    if nodata_mask is not None:
        mask[nodata_mask] = IGNORE
    return mask


def predict_sliding(
    predict: Callable[[Tensor], Tensor],
    image: Tensor,
    window: int,
    border: str,
    batch: int,
    fade: bool = False,
    skip: Callable[[int, int, int, int], bool] | None = None,
) -> Tensor:
    """Return the probabilities `[1, C, H, W]` of an image `[1, C, H, W]`, averaged over square
    windows with a stride of two thirds of their side.

    Args:
        predict: images `[B, C, h, w]` to probabilities.
        border: windows at the border of the image, see `window_starts`.
        batch: largest number of windows that run together; all of them have the same size.
        fade: windows count less towards their borders (see `fading`), so that no border is visible.
        skip: tells from top, left, height and width of a window that it is not predicted; pixels
            without any window get 0. Some window is predicted.
    """
    h, w = image.shape[-2:]
    by_size: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for y in window_starts(h, window, border):
        for x in window_starts(w, window, border):
            wh, ww = min(window, h - y), min(window, w - x)
            if skip is None or not skip(y, x, wh, ww):
                by_size.setdefault((wh, ww), []).append((y, x))
    total: Tensor | None = None
    for (wh, ww), corners in by_size.items():
        for i in range(0, len(corners), batch):
            chunk = corners[i : i + batch]
            windows = torch.cat([image[..., y : y + wh, x : x + ww] for y, x in chunk])
            probabilities = predict(windows)
            if total is None:
                total = probabilities.new_zeros(1, probabilities.shape[1], h, w)
            for (y, x), window_probabilities in zip(chunk, probabilities, strict=True):
                if fade:
                    device = window_probabilities.device
                    weight = fading(y, wh, h, device)[:, None] * fading(x, ww, w, device)
                    window_probabilities = window_probabilities * weight
                total[0, :, y : y + wh, x : x + ww] += window_probabilities
    assert total is not None
    return total.div_(total.sum(1, keepdim=True).clamp_(min=1e-30))


def fading(begin: int, side: int, size: int, device: torch.device) -> Tensor:
    """Return the weights `[side]` of a window at `begin` along a side of `size` pixels: almost 0 in
    the outer quarter of an overlap of a third, then rising linearly to 1 over half of the overlap.

    At the border of the image, where the windows end together, they do not fall.
    """
    place = torch.arange(side, device=device) + 0.5
    inside = torch.full_like(place, torch.inf)
    begins = place if begin > 0 else inside
    ends = side - place if begin + side < size else inside
    return ((torch.minimum(begins, ends) - side / 12) / (side / 6)).clamp(1e-6, 1)


def probabilities_of(network: LogitFunction, image: Tensor) -> Tensor:
    """Return the probabilities of `logits_of`."""
    return logits_of(network, image).softmax(1)


def logits_of(network: LogitFunction, image: Tensor) -> Tensor:
    """Return logits at the image's own size; the network sees the image with sides rounded to its
    `size_multiple`, and none shorter than its `min_side`."""
    multiple = getattr(network, "size_multiple", 1)
    least = getattr(network, "min_side", 1)
    h, w = image.shape[-2:]
    fit = [max(multiple, least, int(side / multiple + 0.5) * multiple) for side in (h, w)]
    if fit == [h, w]:
        return network(image).float()
    resized = F.interpolate(image, fit, mode="bilinear", align_corners=True)
    logits = network(resized).float()
    return F.interpolate(logits, (h, w), mode="bilinear", align_corners=True)


def logits_of_square(network: LogitFunction, image: Tensor, side: int) -> Tensor:
    """Return logits at the image's own size of a network that sees the image resized to a square,
    as is common for medical images."""
    resized = F.interpolate(image, (side, side), mode="bilinear", align_corners=False)
    logits = logits_of(network, resized)
    return F.interpolate(logits, image.shape[-2:], mode="bilinear", align_corners=False)


def window_starts(size: int, window: int, border: str) -> list[int]:
    """Return the first pixel of each sliding window along one side; the stride is two thirds of a
    window.

    `border`: `cut`, the last windows are smaller; or `shift`, the last window is moved back to end
    at the border.
    """
    stride = max(1, int(window * 2 / 3))
    if border == "cut":
        return list(range(0, size, stride))
    starts = list(range(0, max(size - window, 0), stride))
    return [*starts, max(size - window, 0)]


def mode_for_size(config: Config, size: tuple[int, int]) -> str:
    """Return the config's prediction mode; sliding windows instead of `original` for an image
    (width, height) much larger than the crops of training."""
    mode = config.evaluation.mode
    if mode == "original" and wants_windows(max(size), config.crop_size):
        return "sliding_window"
    return mode


def confidence(probabilities: Tensor) -> Tensor:
    """Return the probability of the predicted class, `[H, W]`, of probabilities `[C, H, W]`."""
    return probabilities.amax(0)


def entropy(probabilities: Tensor) -> Tensor:
    """Return the Shannon entropy divided by its maximum, `[H, W]`."""
    return torch.special.entr(probabilities).sum(0) / math.log(len(probabilities))


def margin(probabilities: Tensor) -> Tensor:
    """Return 1 minus the margin between the two most probable classes, `[H, W]` (Joshi et al., CVPR
    2009)."""
    first, second = probabilities.topk(2, dim=0).values
    return 1 - (first - second)


def least_confidence(probabilities: Tensor) -> Tensor:
    """Return 1 minus the confidence, `[H, W]`."""
    return 1 - confidence(probabilities)


UNCERTAINTIES: dict[str, Callable[[Tensor], Tensor]] = {
    "entropy": entropy,
    "margin": margin,
    "least_confidence": least_confidence,
}
"""Measures in [0, 1], by their names in `inference.cli.ACQUISITIONS` (Settles, Active Learning
Literature Survey, 2009, section 3.1)."""
