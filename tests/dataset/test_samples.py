"""Samples take little memory, and every sample is used in training."""

import gc
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.cache import DecodedSamples
from dataset.datasets import TrainingSet
from dataset.file_content import Content
from dataset.reader import Reader
from dataset.samples import Origin, Sample, Samples
from dataset.split_files import read_split_file
from util.config.loading import load_config

ORIGINS = Origin(Path("a.txt"), Path("x")), Origin(Path("b.txt"), Path("y"))


def some_samples(count):
    images = [f"images/ü\udcff {i}.jpg" for i in range(count)]  # also a name that is no UTF-8
    masks = [f"masks/{i}.png" if i % 3 else None for i in range(count)]
    return [Sample(images[i], masks[i], i, ORIGINS[2 * i // count]) for i in range(count)]


def test_samples_are_a_sequence():
    objects = some_samples(20)
    samples = Samples(objects)
    assert list(samples) == objects and len(samples) == 20 and list(Samples()) == []
    assert [samples[i] for i in range(-20, 20)] == objects * 2
    assert samples[np.int64(7)] == objects[7] and samples[::-3] == objects[::-3]
    assert list(pickle.loads(pickle.dumps(samples))) == objects  # noqa: S301
    for place in (20, -21):
        with pytest.raises(IndexError):
            samples[place]


def test_samples_are_small_and_few_objects():
    """Samples need no objects of their own: data workers would copy each of these objects."""
    objects = some_samples(5000)
    text = sum(len(s.image.encode("utf-8", "replace")) + len(s.mask or "") for s in objects)
    tracemalloc.start()
    samples = Samples(objects)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < text + 30 * len(objects)
    assert reachable(samples) < 100 < 5000 < reachable(objects)


def test_a_list_that_was_read_is_few_objects(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("".join(f"images/{i}.jpg masks/{i}.png\n" for i in range(1000)))
    listed = read_split_file(path, masks=True)
    assert len(listed.samples) == 1000 and reachable(listed) < 100


def reachable(root):
    """Count the objects that the garbage collector reaches from `root`, except classes."""
    found, new = set(), [root]
    while new:
        below = (o for o in gc.get_referents(*new) if not isinstance(o, type))
        new = [o for o in {id(o): o for o in below}.values() if id(o) not in found]
        found |= {id(o) for o in new}
    return len(found)


@pytest.mark.parametrize("labeled, unlabeled", [(11, 3), (3, 11)])
def test_the_shorter_list_repeats_and_nothing_is_dropped_for_good(
    labeled, unlabeled, toy, monkeypatch
):
    """With steps of 4, an epoch takes 8 of 11 images, others each time, and repeats 3 images."""
    seen = []

    def load(path, *_, **__):
        seen.append(path.name)
        return Content(Image.new("RGB" if path.name != "mask" else "L", (8, 8)))

    for module in ("mask_files", "bands"):
        monkeypatch.setattr(f"dataset.{module}.read_content", load)
    sets = (
        Samples([Sample(f"{kind}{i}", "mask", 0, ORIGINS[0]) for i in range(count)])
        for kind, count in (("l", labeled), ("u", unlabeled))
    )
    reader = Reader(load_config(toy.config).data)
    opened = (DecodedSamples(reader, samples, masks=i == 0) for i, samples in enumerate(sets))
    config = load_config(toy.config, ["crop_size=8"])
    data = TrainingSet(config, *opened, length=8, strong_views=1, cutmix_partner="batch")
    long_kind, short_kind = ("l", "u") if labeled > unlabeled else ("u", "l")
    left_out, shuffles = [], []
    for epoch in range(8):
        seen.clear()
        for position in range(8):
            data[epoch, position]
        long = [name for name in seen if name[0] == long_kind]
        short = [name for name in seen if name[0] == short_kind]
        assert len(long) == len(set(long)) == len(short) == 8
        assert all(short.count(f"{short_kind}{i}") in (2, 3) for i in range(3))
        left_out.append({f"{long_kind}{i}" for i in range(11)} - set(long))
        shuffles += [tuple(short[:3]), tuple(short[3:6])]
    assert set.intersection(*left_out) == set() and len(set(map(frozenset, left_out))) > 4
    assert all(len(set(shuffle)) == 3 for shuffle in shuffles) and len(set(shuffles)) > 3
    assert any(first != second for first, second in zip(shuffles[::2], shuffles[1::2], strict=True))
