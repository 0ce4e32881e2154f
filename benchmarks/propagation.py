"""CorrMatch's region propagation: ours, and the double loop over images and regions."""

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import Table, add_common, compare, read, report
from semi.correlation import propagate_regions, region_maps
from util import dist

TAU, REGIONS = 0.7, 128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_common(parser)


def run(options: argparse.Namespace) -> None:
    report(measure(options), options)


def measure(options: argparse.Namespace) -> list[Table]:
    config = read(options)
    device, size, images = dist.choose_device(options.device), config.crop_size, config.batch_size
    torch.manual_seed(0)
    cells = -(-size // config.model.output_stride)
    attention = _attention(images, cells).to(device)
    rows = torch.randint(cells * cells, (REGIONS,), device=device)
    regions = region_maps(attention, rows, (cells, cells), (size, size))
    coarse = torch.randint(config.num_classes, (images, 1, 6, 6), device=device)
    label = F.interpolate(coarse.float(), (size, size))[:, 0].long()
    confident = torch.rand(images, size, size, device=device) < 0.8
    tau = torch.tensor(TAU, device=device)
    case = (label, confident, regions, tau, config.num_classes)
    _check(case)
    rows_of_table = compare(
        {
            "plain": lambda: plain(*case),
            "counts in integers": lambda: in_integers(*case),
            "ours": lambda: propagate_regions(*case),
            "region maps, beside it": lambda: region_maps(
                attention, rows, (cells, cells), (size, size)
            ),
        },
        options,
    )
    notes = {"images": images, "crop": size, "regions": REGIONS, "classes": config.num_classes}
    return [Table("region propagation", "batch", rows_of_table, notes)]


def _attention(images: int, cells: int) -> Tensor:
    """`[B, hw, hw]`: as of features that change smoothly over the image."""
    features = F.interpolate(torch.randn(images, 16, 5, 5), (cells, cells), mode="bicubic")
    f = features.flatten(2)
    return (f.transpose(1, 2) @ f).softmax(-1)


def _check(case: tuple) -> None:
    """The three agree, and the case is one that changes labels."""
    found = propagate_regions(*case)
    for other in (plain(*case), in_integers(*case)):
        assert all(torch.equal(a, b) for a, b in zip(found, other, strict=True))
    assert not torch.equal(found[0], case[0])


def plain(
    label: Tensor, confident: Tensor, regions: Tensor, tau: Tensor, num_classes: int
) -> tuple[Tensor, Tensor]:
    """The double loop, which waits for the device at every region."""
    label, reliable = label.clone(), confident.clone()
    for b in range(len(label)):
        for region in regions[b]:
            support = region & confident[b]
            if support.sum() == 0 or support.sum() / region.sum() < tau:
                continue
            classes, counts = torch.unique(label[b][support], return_counts=True)
            best = counts.argmax()
            if counts[best] / support.sum() > tau:
                label[b][region] = classes[best]
                reliable[b] |= region
    return label, reliable


def in_integers(
    label: Tensor, confident: Tensor, regions: Tensor, tau: Tensor, num_classes: int
) -> tuple[Tensor, Tensor]:
    """All images at once, as ours, with areas and counts in 64 bits."""
    shape = label.shape
    label, confident, regions = label.flatten(1), confident.flatten(1), regions.flatten(2)
    reliable = confident.clone()
    support = regions & confident[:, None]
    area, size = support.sum(2), regions.sum(2)
    enough = (area > 0) & (area / size >= tau)
    counts = label.new_empty(len(label), num_classes)
    smallest_first = torch.arange(num_classes - 1, -1, -1, device=label.device)
    for k in range(regions.shape[1]):
        counts.zero_().scatter_add_(1, label, support[:, k].long())
        key = (counts * num_classes + smallest_first).amax(1)
        count, winner = key // num_classes, num_classes - 1 - key % num_classes
        take = (enough[:, k] & (count / area[:, k] > tau))[:, None] & regions[:, k]
        label = torch.where(take, winner[:, None], label)
        reliable |= take
    return label.view(shape), reliable.view(shape)
