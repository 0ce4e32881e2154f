"""Decoded labelled images that data workers keep for each other."""

import multiprocessing
import pickle
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.cache import CacheBytes, SharedCache, cache_bytes
from dataset.folders import read_samples
from dataset.loaders import ProcessInfo, evaluation_loader, training_loader
from dataset.reader import Reader
from dataset.samples import Samples
from dataset.split_files import Split, Splits
from dataset.validation import read_splits
from engine.dry_run import _seconds_to_load, _validation
from tests.runs import assert_equal
from util.config.data import Data
from util.config.loading import load_config
from util.errors import UserError

RGB = Data(name="d", root=".", classes=["a", "b"], val="v")
DEEP = Data(name="d", root=".", classes=["a", "b"], val="v", bands=(1, 4), image_range=(0, 9))

NONE = Split("", Samples())


def pair(number, width=6, height=4, data=RGB):
    rng = np.random.default_rng(number)
    image = rng.integers(0, 256, (height, width, data.channels), dtype=np.uint8)
    image = image if data is RGB else image.astype(np.float32) / 7
    return image, Image.fromarray(rng.integers(0, 3, (height, width), dtype=np.uint8))


def same(found, expected):
    types = [part.dtype for part in map(np.asarray, found or ())]
    return types == [part.dtype for part in map(np.asarray, expected)] and all(
        map(np.array_equal, found, expected)
    )


@pytest.mark.parametrize("data, capacity", [(RGB, 290), (DEEP, 650)])
def test_the_first_that_fit_are_kept(data, capacity):
    kept = SharedCache(5, capacity, data, True)
    sizes = {0: (6, 4), 3: (5, 7), 1: (5, 3), 4: (1, 1)}
    for number, size in sizes.items():  # RGB: 96 and 140 bytes; no room for 60 more, but for 4
        kept.add(number, *pair(number, *size, data))
    kept.add(0, *pair(9, 7, 1, data))
    for number in (0, 3, 4):
        assert same(kept.get(number), pair(number, *sizes[number], data)), number
    assert kept.get(1) is None and kept.get(2) is None


def test_images_without_masks_take_no_room_for_them():
    kept = SharedCache(1, 72, RGB, masks=False)
    kept.add(0, pair(0)[0], None)
    found, mask = kept.get(0)
    assert np.array_equal(found, pair(0)[0]) and mask is None


def test_room_goes_to_labelled_images_and_to_lists_that_fit_whole(toy):
    config = load_config(toy.config)
    lists = read_splits(config.data, unlabeled=True)
    sizes = [1.1 * 4 * n for n in (3 * 52 * 44, 5 * 60 * 40, 50 * (38 + 39 + 40))]

    def cache_sizes(kilobytes):
        data = config.data.model_copy(update={"cache_mb": kilobytes / 1024})
        return cache_bytes(lists, data)

    assert cache_sizes(0) == (0, 0, 0) and cache_sizes(10) == (10240, 0, 0)
    most = cache_sizes(200)
    assert most[1:] == tuple(int(size) for size in sizes[1:])
    assert most.labeled == 200 * 1024 - sum(most[1:])
    assert cache_sizes(60).unlabeled == 0 < cache_sizes(60).val, (
        "the one that does not fit is not kept in part"
    )
    exactly = int(sizes[0]) + most.unlabeled
    assert cache_sizes(exactly / 1024).unlabeled == most.unlabeled
    assert cache_sizes((exactly - 1) / 1024).unlabeled == 0
    alone = lists.val._replace(samples=lists.val.samples[:1])
    assert cache_bytes(lists._replace(val=alone), config.data).val == int(1.1 * 4 * 50 * 38)


def test_more_memory_than_there_is(monkeypatch):
    def refused(*_):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("mmap.mmap", refused)
    with pytest.raises(UserError, match=r"^data.cache_mb: cannot allocate 4096 MiB .*\. Fix:"):
        SharedCache(5, 2**32, RGB, True)


def test_a_copy_keeps_none():
    kept = SharedCache(2, 1000, RGB, True)
    kept.add(1, *pair(1))
    other = pickle.loads(pickle.dumps(kept))  # noqa: S301
    other.add(0, *pair(0))
    assert other.get(0) is None and other.get(1) is None and kept.get(0) is None


@pytest.fixture
def default_method(request):
    """Make one of Python's start methods the default, as in another version or system."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(request.param, force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.parametrize("workers, default_method",
                         [(0, "fork"), (2, "fork"), (2, "forkserver"), (2, "spawn")],
                         indirect=["default_method"])  # fmt: skip
def test_a_second_pass_opens_no_file_and_changes_no_sample(workers, toy, default_method):
    config = load_config(toy.config, ["epoch_length=6", "data.reduce_zero_label=true"])
    lists = read_splits(config.data, unlabeled=True)

    def loader(cache_mb):
        data = config.data.model_copy(update={"cache_mb": cache_mb})
        process = ProcessInfo(rank=0, world=1, workers=workers, cuda=False)
        own = config.model_copy(update={"data": data})
        return training_loader(own, lists, cache_bytes(lists, data), 2, 2, 2, process)

    keeping, plain = loader(1), loader(0)
    first = list(plain.start_at(0, 0)), list(plain.start_at(1, 0))
    assert_equal(list(keeping.start_at(0, 0)), first[0])
    for sample in lists.labeled.samples:
        sample.image_file.unlink()
        sample.mask_file.unlink()
    for sample in lists.unlabeled.samples:
        sample.image_file.unlink()
    assert_equal(list(keeping.start_at(1, 0)), first[1])
    with pytest.raises((UserError, RuntimeError), match="no such file"):
        list(plain.start_at(1, 0))
    for each in (keeping, plain) if workers else ():
        each._iterator._shutdown_workers()  # the garbage collector would wait 20 s for each


@pytest.mark.parametrize("kept, workers", [(0, 0), (3, 0), (3, 1), (6, 0)])
def test_a_dry_run_counts_the_files_that_a_run_will_open(kept, workers, toy, tmp_path, monkeypatch):
    """Opening a file takes one second of the fake clock; a cached image takes none."""
    (tmp_path / "six.txt").write_text("".join(f"{i}.png {i}.png\n" for i in range(6)))
    for number in range(6):
        Image.new("L", (50, 40)).save(tmp_path / f"{number}.png")
    sets = [f"data.root={tmp_path}", f"data.labeled={tmp_path}/six.txt", "epoch_length=3"]
    config = load_config(toy.config, sets)
    lists = Splits(read_samples(config.data.labeled, config.data, masks=True), *2 * [NONE])
    room = CacheBytes(int(1.1 * kept * 4 * 50 * 40), 0, 0)
    process = ProcessInfo(rank=0, world=1, workers=workers, cuda=False)
    train = training_loader(config, lists, room, 2, 2, 0, process)
    next(iter(train))
    opened, both = [], Reader.image_and_mask
    monkeypatch.setattr(Reader, "image_and_mask", lambda *each: opened.append(each) or both(*each))
    monkeypatch.setattr(time, "perf_counter", lambda: len(opened))
    monkeypatch.setattr("engine.dry_run.MAX_TIMED_CALLS", 1)
    assert _seconds_to_load(train) == 2 * (1 - kept / 6)
    assert len(opened) == {0: 4, 3: 2, 6: 0}[kept]


@pytest.mark.parametrize("kept", [True, False])
def test_a_dry_run_times_the_second_validation_image(kept, toy, monkeypatch):
    """The first image takes 10 s, the second 1 s for each of two networks; opening a file takes 1 s
    (fake clock)."""
    config = load_config(toy.config)
    samples = read_splits(config.data, unlabeled=False).val.samples
    process = ProcessInfo(rank=0, world=1, workers=0, cuda=False)
    clock, seen, both = [0], [], Reader.image_and_mask

    def passes(result, seconds):
        clock[0] += seconds
        return result

    def evaluate(trainer, network, mode, batches):
        seen.extend(int(batch["index"]) for batch in batches)
        clock[0] += 10 if len(seen) == 1 else 1

    monkeypatch.setattr(Reader, "image_and_mask", lambda *each: passes(both(*each), 1))
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr("engine.dry_run.evaluate_network", evaluate)
    monkeypatch.setattr("engine.dry_run.MAX_TIMED_CALLS", 1)
    val = evaluation_loader(config, samples, process, 2**20 * kept)
    networks = {"model": None, "model_ema": None}
    device, method = torch.device("cpu"), SimpleNamespace(model=None, eval_models=networks.copy)
    trainer = SimpleNamespace(config=config, device=device, val_loader=val, method=method)
    assert _validation(trainer) == (2, 0 if kept else 2)
    assert seen == [0, 0, len(samples) - 1, len(samples) - 1]
