"""Open every file of a dataset once; record its contents and faults."""

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from typing import NamedTuple
from zlib import crc32

import numpy as np
from PIL import ExifTags, Image, ImageOps

from dataset.bands import rgb_preview
from dataset.folders import scan_samples
from dataset.georeferencing import refuse_other_grid
from dataset.image_files import is_in_stored_orientation, size_mismatch_error
from dataset.mask_files import CLEAR, NODATA, read_mask
from dataset.mask_kinds import MaskFormat, mask_format
from dataset.reader import Reader, read_dates, size_of
from dataset.samples import Sample
from dataset.split_files import Fault, Split
from dataset.threads import map_in_threads
from dataset.transforms.weak import weak_geometry
from tools.check_data.image_stats import BandFacts, ImageFacts, band_facts, image_facts, sum_bands
from util.config.data import SPLIT_NAMES
from util.config.schema import Config
from util.config.types import IGNORE
from util.errors import UserError, counted
from util.seed import sample_generator

CROPS = 4
"""Random crops drawn of each labelled training image."""
MAX_VALUES = 256
"""Values kept of a mask, the most frequent ones."""
SIDE = 256
"""Longer side at which edges are compared, as annotations are a few pixels off at full size."""


@dataclass(eq=False)
class CheckedSample:
    """Contents of a sample's files; None or empty for an unreadable file."""

    sample: Sample
    faults: list[tuple[str, str]] = field(default_factory=list)
    """Kind (a key of `problems.ERRORS` or `WARNINGS`) and message of each fault."""
    facts: ImageFacts | None = None
    bands: BandFacts | None = None
    digest: str | None = None
    """Hash of the image's decoded pixels."""
    values: dict[int, int] = field(default_factory=dict)
    """Pixels by value or colour of the mask, as a code of dataset.mask_files."""
    mask_format: MaskFormat | None = None
    """Storage of mask values; None for masks in colour."""
    pixels: np.ndarray | None = None
    """`[256]`: pixels by class, 255 = ignore, 254 = no class."""
    ignored: list[float] = field(default_factory=list)
    """Share of ignored pixels in each of some random training crops."""

    @property
    def is_empty(self) -> bool:
        """True for a mask without a labelled pixel."""
        return self.pixels is not None and self.pixels[IGNORE] == self.pixels.sum()


class CheckedSplit(NamedTuple):
    """A split file, the faults of its lines, and the contents of its samples."""

    name: str
    listed: Split
    faults: list[Fault]
    items: list[CheckedSample]

    @property
    def pixels(self) -> np.ndarray:
        """`[256]`: pixels of all masks by class."""
        return sum((s.pixels for s in self.items if s.pixels is not None), np.zeros(256, np.int64))

    @property
    def is_labelled(self) -> bool:
        """True where a pixel of a mask is not ignored."""
        return bool(self.pixels[:IGNORE].any())

    @property
    def masks_with(self) -> np.ndarray:
        """`[256]`: number of masks that hold a class."""
        present = (s.pixels > 0 for s in self.items if s.pixels is not None)
        return sum(present, np.zeros(256, np.int64))

    @property
    def values(self) -> dict[int, int]:
        """Pixels of all masks by value or colour, the most frequent first."""
        total: Counter[int] = Counter()
        for item in self.items:
            total.update(item.values)
        return dict(total.most_common())

    @property
    def bands(self) -> BandFacts | None:
        """Sums over all images; None without an image."""
        return sum_bands(item.bands for item in self.items)

    @property
    def crops(self) -> np.ndarray:
        """Share of ignored pixels in each crop drawn."""
        return np.array([share for item in self.items for share in item.ignored])


def inspect(config: Config) -> list[CheckedSplit]:
    """Open all files of all splits that the config names, in threads, with progress bars.

    Raises `UserError` for a missing, empty or binary split file.
    """
    data, reader = config.data, Reader(config.data)
    splits = [
        CheckedSplit(name, *scan_samples(source, data, masks=name != "unlabeled"), [])
        for name in SPLIT_NAMES
        if (source := getattr(data, name)) is not None
    ]
    total = sum(len(split.listed.samples) for split in splits)
    print(f"reading    {counted(total, 'image')} and their masks", flush=True)
    for split in splits:
        samples = split.listed.samples
        files = [sample.image_file for sample in samples]
        crop = config.crop_size if split.name == "labeled" else None
        one = partial(_inspect_sample, reader=reader, crop=crop)
        split.items.extend(map_in_threads(one, samples, files, split.name))
    return splits


def _inspect_sample(sample: Sample, reader: Reader, crop: int | None) -> CheckedSample:
    """Read the files of a sample; record their contents and faults.

    `crop`: side of the random crops to draw; None to draw none.
    """
    item = CheckedSample(sample)
    image = nodata_mask = None
    try:
        pixels, nodata_mask = read_dates(sample.image_files, reader.data)
        image = rgb_preview(pixels, reader.data)
        item.facts = image_facts(sample.image_file, image)
        item.bands = band_facts(pixels, nodata_mask)
        item.digest = _digest(pixels)
    except UserError as error:
        item.faults.append(("unreadable", str(error)))
    if sample.mask is not None:
        labels = _inspect_mask(item, image, nodata_mask, reader)
        if labels and image and not item.faults:
            _compare_with_image(item, image, labels, reader, crop)
    try:
        refuse_other_grid(sample.files)
    except UserError as error:
        item.faults.append(("grid", str(error)))
    return item


def _inspect_mask(
    item: CheckedSample, image: Image.Image | None, nodata_mask: np.ndarray | None, reader: Reader
) -> Image.Image | None:
    """Record the contents of a mask; return its class indices, or None for an invalid mask."""
    sample, path, kind = item.sample, item.sample.mask_file, "unreadable"
    try:
        mask = read_mask(path, reader.data.max_megapixels)
        kind = "mask"
        if image and image.size != mask.size:
            turned = is_in_stored_orientation(sample.image_file, image.size, mask.size)
            mismatch = size_mismatch_error(sample.image_file, path, image.size, mask.size)
            item.faults.append(("turned" if turned else "size", str(mismatch)))
        codes = reader.labels.codes(mask, path)
        if nodata_mask is not None and nodata_mask.shape == codes.shape:
            codes = np.where(nodata_mask, np.uint32(NODATA), codes)
        values, pixels = np.unique(codes, return_counts=True)
        most = pixels.argsort()[::-1][:MAX_VALUES]
        item.values = dict(zip(values[most].tolist(), pixels[most].tolist(), strict=True))
        classes = reader.labels.class_of(values)
        item.pixels = np.bincount(classes, pixels, 256).astype(np.int64)
        if not reader.labels.in_colour:
            item.mask_format = mask_format(
                mask, values[values < CLEAR].tolist(), path, reader.labels
            )
        return Image.fromarray(reader.labels.look_up(codes, path))
    except UserError as error:
        item.faults.append((kind, str(error)))
        return None


def _compare_with_image(
    item: CheckedSample, image: Image.Image, labels: Image.Image, reader: Reader, crop: int | None
) -> None:
    """Draw training crops; compare the orientation of mask and image."""
    sample, draw = item.sample, weak_geometry(reader.data)
    for number in range(CROPS if crop else 0):
        rng = sample_generator(0, 0, crc32(sample.image.encode()), number)
        drawn = draw(rng, labels.size, crop or 0).mask(labels)
        item.ignored.append((drawn == IGNORE).float().mean().item())
    orientation = item.facts.exif if item.facts else 1
    if orientation != 1 and _fits_stored_orientation(image, labels, orientation):
        message = (
            f"{sample.mask_file}: fits {sample.image_file} better without its EXIF orientation"
        )
        item.faults.append(("maybe turned", message))


def _fits_stored_orientation(image: Image.Image, labels: Image.Image, orientation: int) -> bool:
    """Return True if the image has more contrast along the borders of the mask after the mask is
    turned by the image's EXIF orientation; both have one size, as a viewer shows them."""
    turned = labels.copy()
    turned.getexif()[ExifTags.Base.Orientation] = orientation
    ImageOps.exif_transpose(turned, in_place=True)
    grey = image.convert("L")
    grey.thumbnail((SIDE, SIDE))
    as_shown, as_stored = (
        _contrast(grey, mask.resize(grey.size, Image.Resampling.NEAREST))
        for mask in (labels, turned)
    )
    return as_stored > as_shown


def _contrast(picture: Image.Image, labels: Image.Image) -> float:
    """Return the mean difference of grey levels between neighbours of different classes."""
    grey, classes = np.asarray(picture).astype(np.int16), np.asarray(labels)
    steps = [np.abs(np.diff(grey, axis=axis))[np.diff(classes, axis=axis) != 0] for axis in (0, 1)]
    differences = np.concatenate(steps)
    return float(differences.mean()) if differences.size else 0.0


def _digest(image: np.ndarray) -> str:
    return blake2b(image.tobytes(), digest_size=16, person=b"%dx%d" % size_of(image)).hexdigest()
