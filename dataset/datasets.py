"""Training and evaluation sets: from samples to arrays, in the data workers.

A sample depends on the seed, the epoch and its position only, not on the number of workers or
processes, so a checkpoint needs no state of the data.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from dataset.cache import DecodedSample, DecodedSamples
from dataset.reader import size_of
from dataset.transforms.strong import draw_box, draw_strong
from dataset.transforms.weak import weak_geometry
from util.config.schema import Config
from util.config.types import IGNORE
from util.errors import UserError
from util.numbers import ceil_div
from util.seed import sample_generator

LABELED, UNLABELED, PARTNER = range(3)
"""Streams of samples; each has its own shuffles and random numbers (`util.seed`)."""
FAILURES = (UserError, MemoryError)
"""Exceptions that end a run with one line."""


@lru_cache(maxsize=3)  # the streams of an epoch
def epoch_order(count: int, length: int, seed: int, stream: int, epoch: int) -> np.ndarray:
    """Return `length` indices below `count`, from consecutive shuffles of all of them."""
    rng = sample_generator(seed, stream, epoch, -1 % 2**32)
    shuffles = [rng.permutation(count) for _ in range(ceil_div(length, count))]
    return np.concatenate(shuffles)[:length]


class ImageSet(Dataset):
    """Samples by key, fetched together for a batch."""

    def __getitems__(self, keys: Sequence[Any]) -> list[Any] | Exception:
        """Return the samples, or the failure of one.

        A data worker would rebuild an exception from the text of its traceback; a failure that is
        returned reaches the main process unchanged, and `ImageLoader` raises it there.
        """
        try:
            return [self[key] for key in keys]
        except FAILURES as failure:
            return failure


class TrainingSet(ImageSet):
    """Samples by (epoch, position): a labelled image and, if there are any, an unlabelled one
    with its strong views' parameters and its CutMix partner.

    Args:
        length: positions in an epoch.
        strong_views: number of strong views.
        cutmix_partner: as in the config.
    """

    def __init__(
        self,
        config: Config,
        labeled: Sequence[DecodedSample],
        unlabeled: Sequence[DecodedSample],
        *,
        length: int,
        strong_views: int,
        cutmix_partner: str,
    ):
        self.labeled = labeled
        self.unlabeled = unlabeled
        self.length = length
        self.strong_views = strong_views
        self.cutmix_partner = cutmix_partner
        self.crop_size = config.crop_size
        self.seed = config.seed
        self.draw_geometry = weak_geometry(config.data)
        self.p_grey = config.data.grey_probability
        self.dates = config.data.dates
        """Images of a sample; they share the geometry and the boxes, not the colours."""

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, position = key
        index = self._index(LABELED, epoch, position)
        sample = {"labeled": self.labeled_sample(index, epoch, position)}
        if self.unlabeled:
            index = self._index(UNLABELED, epoch, position)
            unlabeled = self.unlabeled_sample(index, UNLABELED, epoch, position)
            if self.cutmix_partner == "other":
                index = self._index(PARTNER, epoch, position)
            if self.cutmix_partner in ("other", "self"):
                unlabeled["partner"] = self.unlabeled_sample(index, PARTNER, epoch, position)
            sample["unlabeled"] = unlabeled
        return sample

    def _index(self, stream: int, epoch: int, position: int) -> int:
        """Return the index of the image that a stream shows at a position."""
        count = len(self.labeled if stream == LABELED else self.unlabeled)
        return epoch_order(count, self.length, self.seed, stream, epoch)[position]

    def labeled_sample(self, index: int, epoch: int, position: int) -> dict[str, Any]:
        """Return the weak view of labelled image `index` and its mask."""
        rng = sample_generator(self.seed, LABELED, epoch, position)
        image, mask = self.labeled[index]
        assert mask is not None
        geometry = self.draw_geometry(rng, size_of(image), self.crop_size)
        return {"image": geometry.image(image), "mask": geometry.mask(mask)}

    def unlabeled_sample(
        self, index: int, stream: int, epoch: int, position: int
    ) -> dict[str, Any]:
        """Return the weak view of unlabelled image `index`, and parameters of its strong views."""
        rng = sample_generator(self.seed, stream, epoch, position)
        image, nodata_mask = self.unlabeled[index]
        geometry = self.draw_geometry(rng, size_of(image), self.crop_size)
        ignore = geometry.padding()
        if nodata_mask is not None:
            ignore |= geometry.mask(nodata_mask) == IGNORE
        strong_params = [
            draw_strong(rng, self.p_grey) for _ in range(self.strong_views * self.dates)
        ]
        boxes = [draw_box(rng, self.crop_size) for _ in range(self.strong_views)]
        return {
            "image": geometry.image(image),
            "ignore": ignore,
            "strong_params": strong_params,
            "boxes": np.array(boxes, np.int64).reshape(-1, 4),
        }


class EvaluationSet(ImageSet):
    """Whole images with their masks: {image `[C, H, W]`, mask uint8 `[H, W]`, index}."""

    def __init__(self, images: DecodedSamples):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, mask = self.images[index]
        pixels = image.transpose(2, 0, 1).copy()
        return {"image": pixels, "mask": np.array(mask), "index": index}
