"""Every file of a dataset opened once: what it holds, and what is wrong with it."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from PIL import Image
from tqdm import tqdm

from dataset.bands import picture
from dataset.folders import scan_samples
from dataset.image_files import lies_as_stored, size_mismatch
from dataset.mask_files import CLEAR, VOID, read_mask
from dataset.mask_kinds import MaskFormat, mask_format
from dataset.reader import Reader, read_valid_dates, size_of
from dataset.samples import Sample
from dataset.split_files import Fault, SampleList
from dataset.transforms.geometry import Weak, weak_augmentation
from dataset.validation import named
from tools.check_data.band_stats import BandFacts, band_facts, together
from tools.check_data.image_stats import ImageFacts, image_facts
from tools.check_data.orientation import fits_better_as_stored
from util.config.schema import Config
from util.config.types import IGNORE
from util.errors import UserError
from util.seed import sample_generator

CROPS = 4
"""Random crops drawn of each labelled training image."""
MAX_VALUES = 256
"""Values kept of a mask, the most frequent ones."""
KINDS = ("labeled", "unlabeled", "val", "test")


class Seen(NamedTuple):
    """What the files of a sample hold."""

    sample: Sample
    faults: list[tuple[str, str]]
    """Kind and message of what is wrong."""
    size: tuple[int, int] | None = None
    facts: ImageFacts | None = None
    bands: BandFacts | None = None
    digest: str | None = None
    """Hash of the image's decoded pixels."""
    values: dict[int, int] = {}
    """Pixels by value or colour of the mask, as a code of dataset.mask_files."""
    stored: MaskFormat | None = None
    """How its mask stores values, where values are class indices or keys of a label_map."""
    pixels: np.ndarray | None = None
    """`[256]`: pixels by class, 255 = ignore, 254 = no class."""
    ignored: tuple[float, ...] = ()
    """The share of ignored pixels in each of some random crops, as training draws them."""

    @property
    def empty(self) -> bool:
        """Whether its mask is all ignored."""
        return self.pixels is not None and self.pixels[IGNORE] == self.pixels.sum()


class SeenList(NamedTuple):
    """A list, the faults of its lines, and what its samples hold."""

    kind: str
    listed: SampleList
    faults: list[Fault]
    seen: list[Seen]

    @property
    def pixels(self) -> np.ndarray:
        """`[256]`: pixels of all masks by class."""
        return sum((s.pixels for s in self.seen if s.pixels is not None), np.zeros(256, np.int64))

    @property
    def masks_with(self) -> np.ndarray:
        """`[256]`: number of masks that hold a class."""
        present = (s.pixels > 0 for s in self.seen if s.pixels is not None)
        return sum(present, np.zeros(256, np.int64))

    @property
    def values(self) -> dict[int, int]:
        """Pixels of all masks by value or colour, the most frequent first."""
        total: Counter[int] = Counter()
        for seen in self.seen:
            total.update(seen.values)
        return dict(total.most_common())

    @property
    def sizes(self) -> dict[tuple[int, int], int]:
        """Number of images by size, the most frequent first."""
        return dict(Counter(seen.size for seen in self.seen if seen.size).most_common())

    @property
    def bands(self) -> BandFacts | None:
        """What the bands of all images hold together."""
        return together(seen.bands for seen in self.seen if seen.bands)

    def facts(self, name: str) -> dict[Any, int]:
        """Number of images by one of their facts, the most frequent first."""
        found = (getattr(seen.facts, name) for seen in self.seen if seen.facts)
        return dict(Counter(found).most_common())

    @property
    def brightness(self) -> dict[str, int]:
        """Number of images by mean grey value, in eight steps."""
        steps = Counter(int(seen.facts.brightness) // 32 for seen in self.seen if seen.facts)
        return {f"{32 * step} to {32 * step + 31}": steps[step] for step in range(8)}

    @property
    def crops(self) -> np.ndarray:
        """The share of ignored pixels in each crop drawn."""
        return np.array([share for seen in self.seen for share in seen.ignored])


def inspect(config: Config) -> list[SeenList]:
    """Open all files of all lists that the config names, in threads, with a progress bar.

    Raises `UserError` when a list is missing, empty or no text.
    """
    data, reader = config.data, Reader(config.data)
    named(data.labeled, "labeled")
    lists = [
        SeenList(kind, *scan_samples(source, data, masks=kind != "unlabeled"), [])
        for kind in KINDS
        if (source := getattr(data, kind)) is not None
    ]
    with (
        ThreadPoolExecutor() as pool,
        tqdm(total=sum(len(found.listed.samples) for found in lists), disable=None) as bar,
    ):
        for found in lists:
            bar.set_description(found.kind)
            crop = config.crop_size if found.kind == "labeled" else None
            jobs = pool.map(lambda s, crop=crop: _look(s, reader, crop), found.listed.samples)
            for seen in jobs:
                found.seen.append(seen)
                bar.update()
    return lists


def _look(sample: Sample, reader: Reader, crop: int | None) -> Seen:
    faults: list[tuple[str, str]] = []
    seen, image, void = Seen(sample, faults), None, None
    try:
        pixels, void = read_valid_dates(sample.image_files, reader.data)
        image = picture(pixels, reader.data)
        facts = image_facts(sample.image_file, image)
        bands, digest = band_facts(pixels, void), _digest(pixels)
        seen = seen._replace(size=image.size, facts=facts, bands=bands, digest=digest)
    except UserError as error:
        faults.append(("unreadable", str(error)))
    return seen if sample.mask is None else _look_at_mask(seen, image, void, reader, crop)


def _look_at_mask(
    seen: Seen,
    image: Image.Image | None,
    void: np.ndarray | None,
    reader: Reader,
    crop: int | None,
) -> Seen:
    sample, path = seen.sample, seen.sample.mask_file
    try:
        mask = read_mask(path, reader.data.max_megapixels)
    except UserError as error:
        seen.faults.append(("unreadable", str(error)))
        return seen
    if image and image.size != mask.size:
        turned = lies_as_stored(sample.image_file, image.size, mask.size)
        mismatch = size_mismatch(sample.image_file, path, image.size, mask.size)
        seen.faults.append(("turned" if turned else "size", str(mismatch)))
    try:
        codes = reader.labels.codes(mask, path)
        if void is not None and void.shape == codes.shape:
            codes = np.where(void, np.uint32(VOID), codes)
        found, counts = np.unique(codes, return_counts=True)
        most = counts.argsort()[::-1][:MAX_VALUES]
        seen = seen._replace(
            values=dict(zip(found[most].tolist(), counts[most].tolist(), strict=True)),
            pixels=np.bincount(reader.labels.class_of(found), counts, 256).astype(np.int64),
        )
        if not reader.labels.in_colour:
            seen = seen._replace(stored=mask_format(mask, found[found < CLEAR].tolist(), path))
        labels = Image.fromarray(reader.labels.look_up(codes, path))
    except UserError as error:
        seen.faults.append(("mask", str(error)))
    if seen.faults or image is None:
        return seen
    if crop:
        weak = weak_augmentation(reader.data)
        seen = seen._replace(ignored=_ignored(labels, weak, crop, sample))
    turn = seen.facts.exif if seen.facts else 1
    if turn != 1 and fits_better_as_stored(image, labels, turn):
        message = f"{path}: fits {sample.image_file} better as that is stored than as EXIF turns it"
        seen.faults.append(("maybe turned", message))
    return seen


def _ignored(labels: Image.Image, weak: Weak, crop: int, sample: Sample) -> tuple[float, ...]:
    shares = []
    for number in range(CROPS):
        rng = sample_generator(0, 0, crc32(sample.image.encode()), number)
        drawn = weak.mask(labels, weak.draw(rng, labels.size, crop))
        shares.append((drawn == IGNORE).float().mean().item())
    return tuple(shares)


def _digest(image: np.ndarray) -> str:
    return blake2b(image.tobytes(), digest_size=16, person=b"%dx%d" % size_of(image)).hexdigest()
