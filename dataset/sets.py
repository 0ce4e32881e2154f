"""Training and evaluation sets: from list entries to arrays, in the data workers.

What a sample of an epoch becomes depends on the seed, the epoch and its position alone: not on
the number of workers or processes, and on nothing that a checkpoint would have to keep.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from dataset.files import open_image, open_mask
from dataset.lists import Sample
from dataset.strong import draw_box, draw_strong
from dataset.weak import draw_geometry, padding, weak_image, weak_mask
from util.errors import UserError
from util.seed import sample_generator

LABELED, UNLABELED, PARTNER = range(3)


def epoch_order(count: int, length: int, seed: int, stream: int, epoch: int) -> np.ndarray:
    """`length` indices below `count`: as many shuffles of all of them as it takes."""
    rng = sample_generator(seed, stream, epoch, -1 % 2**32)
    shuffles = [rng.permutation(count) for _ in range(-(-length // count))]
    return np.concatenate(shuffles)[:length]


class TrainingSet(Dataset):
    """Samples by (epoch, position): a labelled image and, if there are any, an unlabelled one
    with its strong views' parameters and its CutMix partner.

    Args:
        length: positions in an epoch.
        strong_views: number of strong views.
        partner: other, self or batch, as in the config's `cutmix_partner`.
    """

    def __init__(
        self,
        root: Path,
        labeled: Sequence[Sample],
        unlabeled: Sequence[Sample],
        *,
        length: int,
        crop_size: int,
        num_classes: int,
        reduce_zero_label: bool,
        strong_views: int,
        partner: str,
        seed: int,
    ):
        self.root, self.labeled, self.unlabeled = root, labeled, unlabeled
        self.length, self.crop_size, self.num_classes = length, crop_size, num_classes
        self.reduce_zero_label, self.strong_views = reduce_zero_label, strong_views
        self.partner, self.seed = partner, seed
        self._orders: tuple[int, dict[int, np.ndarray]] = (-1, {})

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, position = key
        orders = self._epoch_orders(epoch)
        sample = {"labeled": self._labeled(orders[LABELED][position], epoch, position)}
        if self.unlabeled:
            own = self._unlabeled(orders[UNLABELED][position], UNLABELED, epoch, position)
            if self.partner != "batch":
                other = orders[PARTNER][position]
                own["partner"] = self._unlabeled(other, PARTNER, epoch, position)
            sample["unlabeled"] = own
        return sample

    def _epoch_orders(self, epoch: int) -> dict[int, np.ndarray]:
        if self._orders[0] != epoch:
            counts = {LABELED: len(self.labeled)}
            if self.unlabeled:
                counts |= {UNLABELED: len(self.unlabeled), PARTNER: len(self.unlabeled)}
            orders = {
                stream: epoch_order(count, self.length, self.seed, stream, epoch)
                for stream, count in counts.items()
            }
            if self.partner == "self" and self.unlabeled:
                orders[PARTNER] = orders[UNLABELED]
            self._orders = (epoch, orders)
        return self._orders[1]

    def _labeled(self, index: int, epoch: int, position: int) -> dict[str, Any]:
        sample = self.labeled[index]
        rng = sample_generator(self.seed, LABELED, epoch, position)
        image, mask = open_pair(self.root, sample, self.num_classes, self.reduce_zero_label)
        geometry = draw_geometry(rng, image.size, self.crop_size)
        return {"image": weak_image(image, geometry), "mask": weak_mask(mask, geometry)}

    def _unlabeled(self, index: int, stream: int, epoch: int, position: int) -> dict[str, Any]:
        rng = sample_generator(self.seed, stream, epoch, position)
        image = open_image(self.root / self.unlabeled[index].image)
        geometry = draw_geometry(rng, image.size, self.crop_size)
        return {
            "image": weak_image(image, geometry),
            "ignore": padding(geometry),
            "views": [draw_strong(rng) for _ in range(self.strong_views)],
            "boxes": np.stack([draw_box(rng, self.crop_size) for _ in range(self.strong_views)]),
        }


class EvaluationSet(Dataset):
    """Whole images with their masks: {image uint8 `[3, H, W]`, mask uint8 `[H, W]`, index}."""

    def __init__(
        self, root: Path, samples: Sequence[Sample], num_classes: int, reduce_zero_label: bool
    ):
        self.root, self.samples = root, samples
        self.num_classes, self.reduce_zero_label = num_classes, reduce_zero_label

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, mask = open_pair(
            self.root, self.samples[index], self.num_classes, self.reduce_zero_label
        )
        pixels = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
        return {"image": pixels, "mask": np.array(mask), "index": index}


def open_pair(root: Path, sample: Sample, num_classes: int, reduce_zero_label: bool) -> Any:
    """An image and its mask; raises `UserError` when either is faulty or their sizes differ."""
    assert sample.mask is not None
    image = open_image(root / sample.image)
    mask = open_mask(root / sample.mask, num_classes, reduce_zero_label)
    if image.size != mask.size:
        raise size_mismatch(root, sample, image.size, mask.size)
    return image, mask


def size_mismatch(
    root: Path, sample: Sample, image: tuple[int, int], mask: tuple[int, int]
) -> UserError:
    return UserError(
        f"{root / str(sample.mask)}: the mask is {mask[0]}x{mask[1]}, its image "
        f"{root / sample.image} is {image[0]}x{image[1]}; expected equal sizes"
    )
