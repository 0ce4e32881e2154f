"""Cross-validation: folds of the labelled images, each validated on once, and a sweep over them."""

import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from dataset.samples import Sample
from tools.splits.partition import ClassesByImage, Partition, draw, in_drawn_order
from util.config.loading import parse_assignment
from util.errors import UserError
from util.io import write_once

METHODS = ("supervised", "unimatch")
"""Methods of the sweep; without unlabelled images the first only."""


def draw_folds(
    samples: Sequence[Sample],
    count: int,
    labeled: Fraction | None,
    seed: int,
    classes: ClassesByImage | None = None,
) -> list[Partition]:
    """Draw partitions with disjoint validation images that cover all masks, of sizes equal up to 1.

    Args:
        labeled: as in `draw`, of the images outside the fold; None labels all.
        classes: spread the images of each class, the rarest first, over the folds.

    Raises `UserError` for fewer images than folds.
    """
    masked = [s for s in samples if s.mask is not None]
    if not 2 <= count <= len(masked):
        raise UserError(
            f"--folds {count}: expected 2 to {len(masked)}, the number of images with a mask"
        )
    order = in_drawn_order(masked, seed)
    fold_of = _assign_folds(order, count, classes or {})
    partitions = []
    for fold in range(count):
        val = sorted(s for s in masked if fold_of[s.image] == fold)
        rest = [s for s in samples if s.mask is None or fold_of[s.image] != fold]
        if labeled is None:
            train = sorted(s for s in rest if s.mask is not None)
            partitions.append(Partition(train, sorted(s for s in rest if s.mask is None), val))
        else:
            partitions.append(draw(rest, labeled, Fraction(0), seed, classes)._replace(val=val))
    return partitions


def _assign_folds(order: Sequence[str], count: int, classes: ClassesByImage) -> dict[str, int]:
    """Assign each image to the fold with fewest images of its rarest class, then fewest images."""
    frequency = Counter(label for image in order for label in classes.get(image, ()))
    images_of: Counter[tuple[int, int]] = Counter()  # by fold and class
    sizes = [0] * count
    largest = math.ceil(len(order) / count)
    full = len(order) % count or count

    def rarest(image: str) -> tuple[int, int]:
        return min(((frequency[label], label) for label in classes.get(image, ())), default=(0, -1))

    fold_of = {}
    for image in sorted(order, key=rarest) if classes else order:
        label = rarest(image)[1]
        # Only `full` folds may have one image more than the others.
        most = largest - (sum(size == largest for size in sizes) >= full)
        unfilled = [fold for fold in range(count) if sizes[fold] < most]
        best = min(unfilled, key=lambda fold: (images_of[fold, label], sizes[fold], fold))
        fold_of[image] = best
        sizes[best] += 1
        images_of.update((best, shown) for shown in classes.get(image, ()))
    return fold_of


def write_sweep(
    config: Path, overrides: Sequence[str], lists: Mapping[Path, object], out: Path
) -> str:
    """Write OUT/sweep.yaml for `tools.sweep`; returns a remark.

    `overrides`: `key=value` of the config. Raises `UserError` as `write_once` does.
    """
    path = out / "sweep.yaml"
    settings: dict[str, dict[str, str]] = {}
    for file in lists:
        settings.setdefault(file.parent.name, {})[f"data.{file.stem}"] = str(file)
    unlabeled = any("data.unlabeled" in keys for keys in settings.values())
    run = {"configs": [str(config)], "methods": list(METHODS if unlabeled else METHODS[:1])}
    tree: dict[str, Any] = {"save_path": f"runs/{config.stem}_folds"}
    if overrides:
        tree["set"] = dict(map(parse_assignment, overrides))
    tree["runs"] = [run | {"settings": settings}]
    command = shlex.join(["python", "-m", "tools.sweep", str(path)])
    table = shlex.join(["python", "-m", "tools.results", tree["save_path"]])
    text = (
        f"# Cross-validation over {len(settings)} folds; the table has mean and "
        f"standard deviation over them.\n#\n#   {command}\n#   {table}\n"
        + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    )
    write_once(path, text.encode())
    return f"{path}: written\nnext     {command}"
