"""Report of `tools.prepare init`: images, masks, classes, settings, next commands."""

import argparse
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

from dataset.mask_files import code_of
from dataset.validation import too_few
from tools.prepare.own.classes import IGNORED, RARE, Classes
from tools.prepare.own.config import commands
from tools.prepare.own.images import ImageFile
from tools.prepare.own.masks import Value
from tools.prepare.own.match import MatchedSplits
from tools.prepare.own.settings import Settings
from tools.prepare.own.survey import Survey
from util.config.label_map import OTHER
from util.errors import join_first
from util.paths import from_here
from util.tables import text_table

INDENT = 9 * " "
MAX_ROWS = 64
OTHERS = 12
"""Rows of values without a class."""
FEW = 8
"""Number of masks up to which all are named."""


def report_data(args: argparse.Namespace, found: Survey, classes: Classes) -> None:
    """Print the content of images and masks, and the sizes of the splits."""
    splits, masks = found.splits, found.masks
    print(_summary(found, classes.mapped))
    if args.second:
        print(f"pairs    of two dates: {args.images}, {args.second}")
    print(table(masks.values, classes.labels, splits))
    held = [{classes.class_of(code) for code in pixels} for pixels in masks.pixels]
    trained = set().union(*held[: len(splits.labeled)])
    shown = Counter(chain.from_iterable(held[len(splits.labeled) :][: len(splits.val)]))
    if untrained := [name for label, name in enumerate(classes.names) if label not in trained]:
        print(f"warning  in no training mask: {join_first(untrained, 5)}; label more images, "
              "or draw another validation split with --seed")  # fmt: skip
    showing = [shown[label] for label in range(len(classes.names))]
    if few := too_few(len(splits.val), classes.names, showing):
        print(f"warning  {few}")
    sets = {k: v for k, v in splits._asdict().items() if v or k != "test"}
    print(f"splits   {args.lists}/: {', '.join(f'{len(v)} {k}' for k, v in sets.items())}")


def _summary(found: Survey, mapped: bool) -> str:
    matched, files = found.matched, found.masks.files
    translucent, no_data = sum(f.translucent for f in files), sum(f.no_data for f in files)
    bare, suffix = len(matched.without_mask), matched.suffix
    alpha = sorted({band for image in found.images for band in image.alpha})
    notes = {
        f"band {join_first([*map(str, alpha)], 3)} is marked as alpha: where it is 0, pixels have "
        "no data; if it holds data itself, name it in data.bands": alpha,
        f"{bare} without a mask are unlabelled": bare,
        f"{matched.held_out} without a mask in folders of validation or test images are left out; "
        "to train on them, name their folder in --unlabeled": matched.held_out,
        f"{matched.spare_masks} masks without an image are left out": matched.spare_masks,
        f"names of masks end in {suffix}": suffix,
        f"{no_data} pixels of masks have no data (nodata value or mask of the file): ignored": (
            no_data
        ),
        f"{translucent} masks have pixels that are transparent in part: their colour counts": (
            translucent
        ),
    }
    masked = found.splits.masked()
    codes = "colours" if found.masks.in_colour else "values"
    use = f"{codes} mapped to classes" if mapped else "class indices as they are"
    modes = [mode for mode, _ in Counter(file.mode for file in files).most_common()]
    lines = [
        f"images   {len(masked)} with masks ({_suffixes(s.image for s in masked)}), "
        f"{_sizes(found.images)}, {found.bands.kind}",
        f"masks    {_suffixes(file.path for file in files)}, mode {', '.join(modes)}: {use}",
        *(f"{INDENT}{note}" for note, holds in notes.items() if holds),
    ]
    return "\n".join(lines)


def _sizes(images: Sequence[ImageFile]) -> str:
    """Return the size of all images, or the smallest and the largest."""
    found = sorted({image.size for image in images}, key=lambda size: size[0] * size[1])
    texts = [f"{w}x{h}" for w, h in found]
    return texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]} ({len(texts)} sizes)"


def _suffixes(files: Iterable[Path]) -> str:
    return ", ".join(sorted({file.suffix.lower() for file in files}))


def table(values: Mapping[int, Value], labels: Mapping[str, str], splits: MatchedSplits) -> str:
    """Tabulate class, share and number of masks of each value or colour, and the names of the
    masks of a rare one. Values without a class come last.

    Args:
        labels: classes as `--classes` writes them.
    """
    own = {code_of(key): label for key, label in labels.items() if key != OTHER}
    files = [sample.files()[-1] for sample in splits.masked()]
    rest = sorted(values.keys() - own.keys(), key=lambda code: -values[code].share)
    codes = [*[code for code in values if code in own][:MAX_ROWS], *rest[:OTHERS]]
    rows = [["value", "class", "pixels", "training masks", "validation masks"]]
    for code in codes:
        key, share, held, _ = values[code]
        training = sum(number < len(splits.labeled) for number in held)
        last = len(splits.labeled) + len(splits.val)
        validation = sum(number < last for number in held) - training
        names = [files[number].name for number in held]
        where = f"in {', '.join(names)}" if len(names) <= FEW else f"such as {names[0]}"
        rare = code not in own or len(held) == 1
        label = own.get(code, "-")
        row = [key, "(ignored)" if label == IGNORED else label, f"{share:.2%}", str(training)]
        rows.append([*row, str(validation), *[where] * rare])
    left = len(values) - len(codes)
    more = f"\n{INDENT}... and {left} more" if left else ""
    return text_table(rows, "<<>>><", INDENT) + more


def report_config(
    args: argparse.Namespace,
    classes: Classes,
    settings: Settings,
    script: str | None,
    preset: str,
    hours: float | None,
) -> None:
    """Print the chosen settings and the next commands.

    Args:
        script: of the method to try; None without unlabelled images.
    """
    model = settings.preset.model
    print(
        f"config   {args.out}: preset {preset}, {model['backbone']}, crop "
        f"{settings.crop_size}, {settings.epochs} epochs, evaluation {settings.mode}"
    )
    if model["pretrained"] == "none":
        print("weights  no file, and no internet connection: training starts from random weights "
              "and scores lower; see the comment in the config")  # fmt: skip
    if hours is not None:
        print(f"time     about {hours:.1f} h with {script or 'supervised'}.py on this machine")
    if rare := classes.rare():
        print(f"rare     {join_first([*rare], 5)}: less than {RARE:.0%} of the pixels; try "
              "--set criterion.class_weights=auto")  # fmt: skip
    if not args.classes:
        masks = str(from_here(args.masks)) if args.annotations else None
        print(f"names    {again(classes.labels, masks)} --force")
    check, baseline, *method = commands(args.out, script)
    print(f"check    {check}\nbaseline {baseline}  # first with --dry-run")
    missing = "none without unlabelled images; name a folder of them by --unlabeled"
    print(f"method   {method[0] if method else missing}")


def again(labels: Mapping[str, str], masks: str | None = None) -> str:
    """Return this command with all classes named; with masks instead of annotations.

    `/` replaces commas and `=` in names, which `--classes` cannot hold.
    """
    kept, skipped = [], False
    left_out = {"--classes", "--ignore", "--force"}
    if masks:
        left_out |= {"--annotations", "--unannotated", "--empty", "--masks"}
    for argument in sys.argv[1:]:
        if argument.startswith("--"):
            skipped = argument.partition("=")[0] in left_out
        if not skipped:
            kept.append(argument)
    kept += ["--masks", masks] if masks else []
    names = {key: re.sub(r"\s*[,=]\s*", "/", label) for key, label in labels.items()}
    classes = ",".join(f"{key}={name}" for key, name in names.items())
    return shlex.join(["python", "-m", "tools.prepare", *kept, "--classes", classes])
