"""Prediction of whole images: at once, in sliding windows or resized, in one view or several."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from inference.inputs import wants_windows
from util.config.schema import Config
from util.normalize import mean_and_std, normalise, to_unit
from util.precision import autocast


class Predictor:
    """Class probabilities and masks of whole images, predicted as the config's `evaluation` says.

    Args:
        network: in eval mode, on `device`; or any callable from images to logits, with an optional
            `patch_size`.
        mode: replaces `evaluation.mode`; `center_crop` predicts what it is given, like `original`.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        config: Config,
        device: torch.device,
        mode: str | None = None,
    ):
        self.network, self.config, self.device = network, config, device
        self.mode = config.evaluation.mode if mode is None else mode
        self.mean, self.std = mean_and_std(config, device)

    def mask(self, image: np.ndarray) -> np.ndarray:
        """Return the class indices `[H, W]`, uint8, of an image `[H, W, C]`."""
        return to_mask(self.probabilities(image))

    def probabilities(self, image: np.ndarray) -> Tensor:
        """Return the class probabilities `[C, H, W]` of an image `[H, W, C]`: uint8, or float in
        [0, 1]."""
        x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        return self.predict_batch(x)[0]

    @torch.no_grad()
    def predict_batch(self, images: Tensor) -> Tensor:
        """Return the class probabilities `[B, C, H, W]` of images `[B, C, H, W]`: uint8, or float
        in [0, 1]. B is 1 in sliding windows."""
        x = normalise(to_unit(images.to(self.device, non_blocking=True)), self.mean, self.std)
        with autocast(self.device, self.config.precision):
            return self.predict_normalised(x)

    def predict_normalised(self, x: Tensor) -> Tensor:
        """Return the class probabilities `[B, C, H, W]` of normalised images `[B, C, H, W]`,
        averaged over the views of test-time augmentation (`evaluation.flip`, `.scales`)."""
        evaluation = self.config.evaluation
        if not evaluation.flip and evaluation.scales == (1.0,):
            return self._predict_view(x)
        total: Tensor | None = None
        for scale in evaluation.scales:
            for mirrored in (False, True) if evaluation.flip else (False,):
                view = self._predict_scaled(x.flip(-1) if mirrored else x, scale)
                view = view.flip(-1) if mirrored else view
                total = view if total is None else total + view
        assert total is not None
        return total / total.sum(1, keepdim=True)

    def _predict_view(self, x: Tensor) -> Tensor:
        """Return the probabilities of one view, at its own size."""
        options, crop = self.config.evaluation, self.config.crop_size
        if self.mode == "sliding_window":
            border, batch = options.window_border, options.window_batch
            return predict_sliding(self.network, x, crop, border, batch)
        if self.mode == "resize":
            return logits_of_square(self.network, x, crop).softmax(1)
        return logits_of(self.network, x).softmax(1)

    def _predict_scaled(self, x: Tensor, scale: float) -> Tensor:
        """Return the probabilities of the image at another scale, resized to its own size.

        The image is resized with antialiasing, as in training; `resize` scales its square instead.
        """
        if self.mode == "resize":
            side = max(1, round(scale * self.config.crop_size))
            return logits_of_square(self.network, x, side).softmax(1)
        size = [max(1, round(scale * side)) for side in x.shape[-2:]]
        view = F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
        found = self._predict_view(view)
        return F.interpolate(found, x.shape[-2:], mode="bilinear", align_corners=False)


def to_mask(probabilities: Tensor) -> np.ndarray:
    """Return the most probable class `[H, W]`, uint8, of probabilities `[C, H, W]`."""
    return probabilities.argmax(0).byte().cpu().numpy()


def predict_sliding(
    network: Callable[[Tensor], Tensor], image: Tensor, window: int, border: str, batch: int
) -> Tensor:
    """Return probabilities `[1, C, H, W]`, averaged over square windows with a stride of two thirds
    of their side.

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
            found = logits_of(network, crops).softmax(dim=1)
            if total is None:
                total = image.new_zeros(1, found.shape[1], h, w)
            for (y, x), probabilities in zip(some, found, strict=True):
                total[0, :, y : y + wh, x : x + ww] += probabilities
    assert total is not None
    return total / total.sum(1, keepdim=True)


def logits_of(network: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """Return logits at the image's own size; a network of patches sees the nearest multiple."""
    patch = getattr(network, "patch_size", 1)
    h, w = image.shape[-2:]
    fit = [max(patch, int(side / patch + 0.5) * patch) for side in (h, w)]
    if fit == [h, w]:
        return network(image).float()
    resized = F.interpolate(image, fit, mode="bilinear", align_corners=True)
    logits = network(resized).float()
    return F.interpolate(logits, (h, w), mode="bilinear", align_corners=True)


def logits_of_square(network: Callable[[Tensor], Tensor], image: Tensor, side: int) -> Tensor:
    """Return logits of the image resized to a square, at the image's own size (medical)."""
    resized = F.interpolate(image, (side, side), mode="bilinear", align_corners=False)
    logits = logits_of(network, resized)
    return F.interpolate(logits, image.shape[-2:], mode="bilinear", align_corners=False)


def window_starts(size: int, window: int, stride: int, border: str) -> list[int]:
    """Return where sliding windows begin along one side.

    `cut`: every `stride` inside the image, the last windows smaller; `shift`: the last window moved
    back so that it ends at the border.
    """
    if border == "cut":
        return list(range(0, size, stride))
    starts = list(range(0, max(size - window, 0), stride))
    return [*starts, max(size - window, 0)]


def config_for_size(config: Config, size: tuple[int, int]) -> Config:
    """Return the config, with sliding windows for an image (width, height) that would be predicted
    whole though it is much larger than the crops of training."""
    if config.evaluation.mode != "original" or not wants_windows(max(size), config.crop_size):
        return config
    evaluation = config.evaluation.model_copy(update={"mode": "sliding_window"})
    return config.model_copy(update={"evaluation": evaluation})
