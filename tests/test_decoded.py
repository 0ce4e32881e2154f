"""Decoded labelled images that data workers keep for each other."""

import pickle

import numpy as np
import pytest
from PIL import Image

from dataset.check import read_lists
from dataset.decoded import DecodedPairs
from dataset.loaders import Process, starting_at, training_loader
from tests.test_resume import assert_equal
from util.config_file import load_config
from util.errors import UserError


def pair(number, width=6, height=4):
    rng = np.random.default_rng(number)
    image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    return image, Image.fromarray(rng.integers(0, 3, (height, width), dtype=np.uint8))


def same(found, expected):
    return found is not None and all(map(np.array_equal, found, expected))


def test_the_first_that_fit_are_kept():
    kept, sizes = DecodedPairs(5, capacity=290), {0: (6, 4), 3: (5, 7), 1: (5, 3), 4: (1, 1)}
    for number, size in sizes.items():  # 96 and 140 bytes; no room for 60 more, but for 4
        kept.add(number, *pair(number, *size))
    kept.add(0, *pair(9, 7, 1))
    for number in (0, 3, 4):
        assert same(kept.get(number), pair(number, *sizes[number])), number
    assert kept.get(1) is None and kept.get(2) is None


def test_more_memory_than_there_is(monkeypatch):
    def refused(*_):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("mmap.mmap", refused)
    with pytest.raises(UserError, match=r"^data.cache_mb: found 4096, .*memory\); use less"):
        DecodedPairs(5, capacity=2**32)


def test_a_process_that_is_not_forked_keeps_none():
    kept = DecodedPairs(2, capacity=1000)
    kept.add(1, *pair(1))
    other = pickle.loads(pickle.dumps(kept))
    other.add(0, *pair(0))
    assert other.get(0) is None and other.get(1) is None and kept.get(0) is None


@pytest.mark.parametrize("workers", [0, 2])
def test_a_second_pass_opens_no_labelled_file_and_changes_no_sample(workers, toy):
    config = load_config(toy.config, ["epoch_length=6", "data.reduce_zero_label=true"])
    lists = read_lists(config.data, unlabeled=True)

    def loader(cache_mb):
        data = config.data.model_copy(update={"cache_mb": cache_mb})
        process = Process(rank=0, world=1, workers=workers, cuda=False)
        return training_loader(config.model_copy(update={"data": data}), lists, 2, 2, 2, process)

    keeping, plain = loader(1), loader(0)
    first = list(starting_at(plain, 0)), list(starting_at(plain, 1))
    assert_equal(list(starting_at(keeping, 0)), first[0])
    for sample in lists.labeled.samples:
        sample.image_file.unlink()
        sample.mask_file.unlink()
    assert_equal(list(starting_at(keeping, 1)), first[1])
    with pytest.raises((UserError, RuntimeError), match="no such file"):
        list(starting_at(plain, 1))
