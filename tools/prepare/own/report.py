"""Report of `tools.prepare init`: images, masks, classes, settings, next commands."""

import argparse
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dataset.validation import too_few
from tools.prepare.own.classes import IGNORED, RARE_CLASS_SHARE, Classes
from tools.prepare.own.config import commands
from tools.prepare.own.divide import mixed_groups
from tools.prepare.own.images import ImageFile, suspected_fill
from tools.prepare.own.settings import Settings
from tools.prepare.own.survey import Survey
from util.config.data import SPLIT_NAMES
from util.errors import join_first, shell_quoted
from util.paths import from_here
from util.tables import text_table

INDENT = 9 * " "
MAX_ROWS = 64
MAX_OTHER_ROWS = 12
"""Rows of values without a class."""
MAX_NAMED_MASKS = 8
"""Number of masks up to which all are named."""


def report_data(args: argparse.Namespace, found: Survey, classes: Classes) -> None:
    """Print the content of images and masks, and the sizes of the splits."""
    print(_summary(found, classes.is_mapped))
    if args.second:
        print(f"pairs    of two dates: {args.images}, {args.second}")
    if fill := suspected_fill(found.images, found.kind):
        value, share = fill
        print(f"warning  {share:.1%} of a band's values are {value:.17g}, far from all others, and "
              "set data.image_range. Fix, if these pixels have no data: "
              f"gdal_edit.py -a_nodata {value:.17g} FILE for each TIFF and repeat with --force, or "
              "correct the range")  # fmt: skip
    print(table(found, classes.labels))
    masked = found.masked()
    splits = [Counter(masked[number].split for number in masks) for masks in classes.masks]
    showing = dict(zip(classes.names, splits, strict=True))
    if untrained := [name for name, counts in showing.items() if not counts["labeled"]]:
        print(f"warning  in no training mask: {join_first(untrained, 5)}; label more images, "
              "or draw another validation split with --seed")  # fmt: skip
    sizes = Counter(sample.split for sample in found.samples)
    config, folder = map(shell_quoted, (args.out, f"splits/{args.out.stem}_folds"))
    showing_val = [counts["val"] for counts in splits]
    if few := too_few(sizes["val"], classes.names, showing_val, config, folder):
        print(f"warning  {few}")
    sets = [f"{sizes[split]} {split}" for split in SPLIT_NAMES if sizes[split] or split != "test"]
    print(f"splits   {args.lists}/: {', '.join(sets)}")
    if found.division.is_drawn and (groups := mixed_groups(found.samples, args.images)):
        print(f"note     {groups}")


def _summary(found: Survey, is_mapped: bool) -> str:
    files, masked = found.masks.files, found.masked()
    translucent = sum(f.translucent for f in files)
    pixels_without_data = sum(f.pixels_without_data for f in files)
    alpha = sorted({band for image in found.images for band in image.alpha})
    remarks = [
        (alpha, f"band {join_first([*map(str, alpha)], 3)} is marked as alpha: where it is 0, "
         "pixels have no data; if it holds data itself, name it in data.bands"),
        *((True, remark) for remark in found.division.remarks),
        (pixels_without_data, f"{pixels_without_data} pixels of masks have no data (nodata value "
         "or mask of the file): ignored"),
        (translucent, f"{translucent} masks have pixels that are transparent in part: their "
         "colour counts"),
    ]  # fmt: skip
    codes = "colours" if found.masks.in_colour else "values"
    use = f"{codes} mapped to classes" if is_mapped else "class indices as they are"
    modes = [mode for mode, _ in Counter(file.mode for file in files).most_common()]
    lines = [
        f"images   {len(masked)} with masks ({_suffixes(s.image for s in masked)}), "
        f"{_sizes(found.images)}, {found.kind}",
        f"masks    {_suffixes(file.path for file in files)}, mode {', '.join(modes)}: {use}",
        *(f"{INDENT}{remark}" for applies, remark in remarks if applies),
    ]
    return "\n".join(lines)


def _sizes(images: Sequence[ImageFile]) -> str:
    """Return the size of all images, or the smallest and the largest."""
    found = sorted({image.size for image in images}, key=lambda size: size[0] * size[1])
    texts = [f"{w}x{h}" for w, h in found]
    return texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]} ({len(texts)} sizes)"


def _suffixes(files: Iterable[Path]) -> str:
    return ", ".join(sorted({file.suffix.lower() for file in files}))


def table(found: Survey, labels: Mapping[str, str]) -> str:
    """Tabulate class (of `labels`, as `--classes` writes them), share and number of masks of each
    value or colour, and the names of the masks of a rare one. Values without a class come last."""
    values, masked = found.masks.values, found.masked()
    named = [value for key, value in values.items() if key in labels]
    rest = [value for key, value in values.items() if key not in labels]
    shown = [*named[:MAX_ROWS], *sorted(rest, key=lambda value: -value.share)[:MAX_OTHER_ROWS]]
    rows = [["value", "class", "pixels", "training masks", "validation masks"]]
    for value in shown:
        label = labels.get(value.key, "-")
        holding = [masked[number] for number in value.masks]
        splits = Counter(sample.split for sample in holding)
        row = [value.key, "(ignored)" if label == IGNORED else label, f"{value.share:.2%}"]
        rows.append([*row, str(splits["labeled"]), str(splits["val"])])
        if value.key not in labels or len(holding) == 1:
            names = [sample.files()[-1].name for sample in holding]
            rows[-1].append(
                f"in {', '.join(names)}" if len(names) <= MAX_NAMED_MASKS else f"such as {names[0]}"
            )
    left = len(values) - len(shown)
    more = f"\n{INDENT}... and {left} more" if left else ""
    return text_table(rows, "<<>>><", INDENT) + more


def report_config(
    args: argparse.Namespace, classes: Classes, settings: Settings, hours: float | None
) -> None:
    """Print the chosen settings, the time of a training in hours if measured, and the next
    commands."""
    config = settings.config
    print(
        f"config   {args.out}: preset {settings.preset}, {config['model']['backbone']}, crop "
        f"{config['crop_size']}, {config['epochs']} epochs, evaluation "
        f"{config['evaluation']['mode']}"
    )
    if config["model"]["pretrained"] == "none":
        name = config["model"]["backbone"]
        print("weights  no file, and no internet connection: training starts from random weights "
              "and scores lower. Fix: on a computer with internet: python -m tools.weights fetch "
              f"{name}, then copy pretrained/{name}.pth and repeat with --force")  # fmt: skip
    if hours is not None:
        print(f"time     about {hours:.1f} h with {settings.methods[-1]}.py on this machine")
    if rare := classes.rare():
        print(f"rare     {join_first([*rare], 5)}: less than {RARE_CLASS_SHARE:.0%} of the pixels; "
              "try --set criterion.class_weights=auto")  # fmt: skip
    if not args.classes:
        masks = str(from_here(args.masks)) if args.annotations else None
        print(f"names    {naming_command(classes.labels, masks)} --force")
    check, baseline, *method = commands(args.out, settings.methods)
    print(f"check    {check}\nbaseline {baseline}  # first with --dry-run")
    fix = "name a folder of them by --unlabeled"
    if args.second:
        fix = "add pairs without a mask to --images and --second"
    missing = f"none without unlabelled images; {fix}, and repeat with --force"
    print(f"method   {method[0] if method else missing}")


def naming_command(labels: Mapping[str, str], masks: str | None = None) -> str:
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
