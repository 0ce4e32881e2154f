"""List the problems of a dataset that would break or spoil training."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from dataset.bands import divisors
from dataset.mask_kinds import disagreement
from dataset.overlap import locator, overlaps, shared_volumes
from dataset.samples import Sample
from dataset.validation import too_few
from tools.check_data.image_stats import band_names, sum_bands
from tools.check_data.inspect import CheckedSample, CheckedSplit
from util.config.data import Data
from util.config.schema import Config
from util.config.types import IGNORE
from util.errors import join_first

MOSTLY_IGNORED_SHARE = 0.5
"""Share of ignored pixels above which a crop is mostly ignored."""
MANY_CROPS = 0.25
"""Share of mostly ignored crops above which to warn."""

ERRORS = {
    "line": "faulty line of a split file, or image without a mask",
    "unreadable": "file that is missing or cannot be read",
    "size": "mask of another size than its image",
    "turned": "mask that ignores its image's EXIF orientation",
    "grid": "GeoTIFF on another grid than its image",
    "mask": "mask of a wrong kind, or with values that are no class",
    "kinds": "masks stored in several ways, in which a value means several things",
    "nothing labelled": "split without a labelled pixel",
    "overlap": "image that is listed twice",
    "leak": "same image content in training and evaluation splits, or in val and test",
}
"""Titles of errors by kind."""
WARNINGS = {
    "duplicate": "picture (by decoded pixels) that occurs twice",
    "shared mask": "mask of several images, as after filling down a column of a table",
    "empty mask": "mask in which nothing is labelled",
    "maybe turned": "mask that seems to ignore its image's EXIF orientation: turn it alike, or "
    "remove the orientation",
    "absent class": "class that never occurs",
    "small val": "validation split that is too small",
    "shared volume": "volume that is trained on and evaluated on, or in val and test",
    "ignored crops": "random crops that are mostly ignored",
    "normalisation": "data.mean or data.std that does not fit the training images",
}
"""Titles of warnings by kind."""
TITLES = ERRORS | WARNINGS
ROLES = {"labeled": "training", "unlabeled": "training", "val": "val", "test": "test"}


class Problem(NamedTuple):
    """One fault."""

    kind: str
    """A key of `TITLES`."""
    split: str
    line: int
    message: str
    """Split file, line and file, then what is wrong."""
    item: CheckedSample | None = None
    """The sample, where its files can be shown."""
    twin: CheckedSample | None = None
    """The same picture under another name."""

    @property
    def severity(self) -> str:
        return "error" if self.kind in ERRORS else "warning"


def problems(splits: Sequence[CheckedSplit], config: Config) -> list[Problem]:
    """Return all problems, errors first, kind by kind."""
    unsorted = [
        *(problem for split in splits for problem in _split_problems(split, config)),
        *(
            Problem("overlap", splits[number].name, line, message)
            for number, line, message in overlaps([split.listed for split in splits])
        ),
        *_repeated(splits),
        *_shared_masks(splits),
        *_normalisation(splits, config.data),
        *_shared_volumes(splits, config.evaluation.volume_pattern),
    ]
    for group in (*([split] for split in splits), splits):  # each alone, then all together
        formats = (item.mask_format for split in group for item in split.items)
        if text := disagreement(filter(None, formats)):
            unsorted.append(Problem("kinds", group[0].name, 0, text))
            break
    order = [*TITLES]
    return sorted(unsorted, key=lambda problem: order.index(problem.kind))


def grouped(problems: Iterable[Problem]) -> list[tuple[str, str, list[str]]]:
    """Return severity, title and messages of each kind of problem."""
    kinds = groupby(problems, key=lambda problem: (problem.severity, problem.kind))
    return [
        (severity, TITLES[kind], [problem.message for problem in group])
        for (severity, kind), group in kinds
    ]


def _split_problems(split: CheckedSplit, config: Config) -> Iterator[Problem]:
    yield from (Problem("line", split.name, f.line, str(f)) for f in split.faults)
    for item in split.items:
        sample, faults = item.sample, list(item.faults)
        if item.is_empty:
            faults.append(("empty mask", f"{sample.mask_file}: all pixels are ignored"))
        for kind, text in faults:
            shown = None if kind == "unreadable" else item
            yield Problem(kind, split.name, sample.line, f"{sample.where}: {text}", shown)
    if split.name != "unlabeled":
        for kind, text in _mask_problems(split, config):
            yield Problem(kind, split.name, 0, f"{split.listed.name}: {text}")


def _mask_problems(split: CheckedSplit, config: Config) -> Iterator[tuple[str, str]]:
    """Yield kind and text of problems of a split as a whole."""
    pixels, crops = split.pixels, split.crops
    if not split.is_labelled:
        yield "nothing labelled", "no mask has a labelled pixel"
        return
    absent = [name for name, n in zip(config.data.classes, pixels, strict=False) if not n]
    if absent:
        yield "absent class", f"never in its masks: {', '.join(absent)}"
    if split.name == "val" and (
        few := too_few(len(split.listed.samples), config.data.classes, split.masks_with)
    ):
        yield "small val", few
    if len(crops) and (share := (crops > MOSTLY_IGNORED_SHARE).mean()) > MANY_CROPS:
        masks = f"{pixels[IGNORE] / pixels.sum():.0%} of the masks' pixels are ignored"
        text = (
            f"{share:.0%} of random crops of {config.crop_size} pixels are more than half ignored"
        )
        yield "ignored crops", f"{text} ({masks}; the rest is padding: lower crop_size)"


def _normalisation(splits: Sequence[CheckedSplit], data: Data) -> Iterator[Problem]:
    """Yield bands whose mean or deviation, after `data.image_range`, is far from the config's."""
    training = [split for split in splits if ROLES[split.name] == "training"]
    facts = sum_bands(split.bands for split in training)
    if data.image_range is None or facts is None:
        return
    means, stds = facts.mean_and_std(data.dates)
    stds = divisors(stds)
    wrong = [
        f"{name} has mean {m:.4f}, std {s:.4f} after data.image_range, the config says {mean:g}, "
        f"{std:g}"
        for name, m, s, mean, std in zip(
            band_names(data), means, stds, data.mean, data.std, strict=True
        )
        if (mean, std) != (0, 1)  # the default: not normalised
        and (abs(m - mean) > std or not std / 2 <= s <= 2 * std)
    ]
    if wrong:
        fix = ", ".join(
            f"data.{key}: [{', '.join(f'{value:.4f}' for value in values)}]"
            for key, values in (("mean", means), ("std", stds))
        )
        text = f"data.mean, data.std: {join_first(wrong, 3, '; ')}. Fix: {fix}"
        yield Problem("normalisation", training[0].name, 0, text)


def _shared_volumes(splits: Sequence[CheckedSplit], pattern: str | None) -> Iterator[Problem]:
    """Yield evaluated splits with volumes that an earlier split has slices of."""
    listed = [split.listed for split in splits]
    for number, split in enumerate(splits):
        if ROLES[split.name] == "training":
            continue
        if text := shared_volumes(listed[number], listed[:number], pattern):
            yield Problem("shared volume", split.name, 0, text)


def _shared_masks(splits: Sequence[CheckedSplit]) -> Iterator[Problem]:
    first: dict[Path, Sample] = {}
    for split in splits:
        for sample in (sample for sample in split.listed.samples if sample.mask):
            earlier = first.setdefault(sample.mask_file, sample)
            if earlier.image_file != sample.image_file:
                text = f"'{sample.mask}' is also the mask of '{earlier.image}'"
                yield Problem("shared mask", split.name, sample.line, f"{sample.where}: {text}")


def _repeated(splits: Sequence[CheckedSplit]) -> Iterator[Problem]:
    """Yield equal pictures under different names (one file twice is an overlap); blank images are
    equal without being one picture."""
    location = locator()
    first: dict[str, tuple[CheckedSplit, CheckedSample]] = {}
    for split in splits:
        for item in (i for i in split.items if i.digest and i.bands and not i.bands.constant.all()):
            earlier, twin = first.setdefault(str(item.digest), (split, item))
            sample, same = item.sample, twin.sample
            if location(same) != location(sample):
                kind = "duplicate" if ROLES[earlier.name] == ROLES[split.name] else "leak"
                text = f"'{sample.image}' is the picture '{same.image}' of {same.where}"
                message = f"{sample.where}: {text}"
                yield Problem(kind, split.name, sample.line, message, item, twin)
