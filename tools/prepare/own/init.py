"""Write a config and split files for images and masks of your own.

Classes, bands and settings follow from the content of the files."""

import argparse
import os
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

from dataset.image_files import MAX_MEGAPIXELS
from tools.prepare.annotations import write as annotations
from tools.prepare.own.classes import Classes, ClassOptions, Doubt, choose_classes, parse_classes
from tools.prepare.own.config import config_text, lines_of, write_new
from tools.prepare.own.match import MatchedSplits
from tools.prepare.own.report import again, report_config, report_data, table
from tools.prepare.own.settings import (
    PRESETS,
    Settings,
    choose_preset,
    choose_settings,
    find_pretrained,
    schedule_for,
    seconds_of,
)
from tools.prepare.own.survey import Survey, survey
from util.config.loading import load_config
from util.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--images", type=Path, required=True, help="folder of images")
    add("--second", type=Path, help="folder of the later images of pairs, named as the earlier "
        "ones in --images; masks then show changes (default: no pairs)")  # fmt: skip
    add("--masks", type=Path, help="folder of masks, named as their images (default: --images)")
    annotations.add_arguments(parser)
    add("--image-pattern", default="*", metavar="PATTERN", help="pattern of the images' names, "
        "such as '*_image.png' or '*.bmp'; images and masks match by *")  # fmt: skip
    add("--mask-pattern", default="*", metavar="PATTERN", help="pattern of the masks' names")
    add("--unlabeled", type=Path, help="folder of further images, without masks; if some fit "
        "--image-pattern, these only (default: none)")  # fmt: skip
    add("--val", nargs="+", metavar="SHARE|DIR", help="images to validate on: a share of the "
        "labelled ones, a folder in --images, or a folder of images and one of masks (default: the "
        "folder val in --images, else a tenth of the labelled images, but at least 10, or a third "
        "of fewer than 30); a folder test in --images becomes the test split")  # fmt: skip
    add("--out", type=Path, required=True, help="config file to write")
    add("--lists", type=Path, help="folder for the split files (default: splits/<name of the "
        "config>)")  # fmt: skip
    add("--classes", help="class names in the order of the values (background,road,roof), or by "
        "value or colour (0=background,255=road; 0,0,0=background,255,0,0=road); several may "
        "share a name; `ignore` is one, and other=NAME, other=ignore or other=nearest is for the "
        "rest (default: found in the masks)")  # fmt: skip
    add("--ignore", nargs="+", default=[], metavar="VALUE", help="values or colours (r,g,b) to "
        "ignore; other: stray values that are hardly classes")  # fmt: skip
    add("--preset", choices=PRESETS, help="size of network and crops: small for a CPU, base for a "
        "GPU, large for DINOv2, the strongest (default: small, or base with a GPU)")  # fmt: skip
    add("--time-budget", metavar="TIME", help="train as many epochs as fit TIME on this machine "
        "(90min, 2h, 1d), by a measured step (default: 10 to 80 epochs, fewer for many "
        "images)")  # fmt: skip
    add("--max-megapixels", type=int, default=MAX_MEGAPIXELS, metavar="N",
        help="refuse images and masks of more than N million pixels")  # fmt: skip
    add("--skip-bad", action="store_true", help="skip images that cannot be read or do "
        "not fit their masks, and list them")  # fmt: skip
    add("--seed", type=int, default=0, help="seed that draws the validation images")
    add("--force", action="store_true", help="replace the config and the split files; the old "
        "ones are kept as FILE.old, FILE.old2, ...")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Read the data, write config and split files, and report the findings.

    Raises `UserError` for data that cannot be trained on and for files that would be overwritten.
    """
    args.lists = args.lists or Path("splits") / args.out.stem
    outputs = [args.out, *(args.lists / f"{kind}.txt" for kind in MatchedSplits._fields)]
    existing = [path for path in outputs if path.exists()]
    if existing and not args.force:
        raise UserError(
            f"{existing[0]}: exists already. Fix: choose another --out or --lists, or pass --force"
        )
    if args.time_budget is not None:  # a wrong time is refused before files are read
        args.time_budget = seconds_of(args.time_budget)
    if args.annotations is None:
        named = parse_classes(args.classes, args.ignore)
        named = named._replace(of_change=args.second is not None)
        written = _write_config(args, existing, named)
    else:  # on an error, the new masks are removed; never once the config names them
        with annotations.annotated_masks(args) as (args.masks, named):
            written = _write_config(args, existing, named)
    load_config(args.out)  # the written file can be read
    _fit_and_report(args, written)


class Written(NamedTuple):
    """Content of the written config."""

    found: Survey
    classes: Classes
    data: dict[str, Any]
    settings: Settings
    preset: str

    def text(self, out: Path) -> str:
        return config_text(out, self.data, self.found, self.classes, self.settings)


def _write_config(args: argparse.Namespace, existing: list[Path], named: ClassOptions) -> Written:
    """Read images and masks; write config and split files, keeping `existing` files as .old."""
    found = survey(args, named.colours())
    splits, classes = found.splits, _choose(found, named, args.force)
    preset = args.preset or choose_preset()
    pretrained = find_pretrained(PRESETS[preset].model["backbone"])
    largest = max(len(splits.labeled), len(splits.unlabeled))
    settings = choose_settings(found.images, largest, preset, pretrained)
    lines, root = lines_of(splits, args.lists)
    data: dict[str, Any] = {"name": args.out.stem, "root": str(root)}
    data |= {path.stem: str(path) for path in lines}
    if args.second is not None:
        data |= {"pair": "column", "scale": [0.8, 1.2], "grey_probability": 0}
    if args.max_megapixels != MAX_MEGAPIXELS:
        data["max_megapixels"] = args.max_megapixels
    written = Written(found, classes, data, settings, preset)
    text = written.text(args.out)
    for path in existing:
        names = (f"{path.name}.old{number or ''}" for number in chain([0], count(2)))
        path.replace(next(old for old in map(path.with_name, names) if not os.path.lexists(old)))
    write_new(args.out, text, lines)
    return written


def _fit_and_report(args: argparse.Namespace, written: Written) -> None:
    """Fit the epochs of the config to --time-budget, and print the findings."""
    found, settings = written.found, written.settings
    script = settings.preset.script if found.splits.unlabeled else None
    hours = None
    if args.time_budget is not None:
        method = script or "supervised"
        epochs, length, hours = schedule_for(args.out, method, args.time_budget)
        settings = settings._replace(epochs=epochs, epoch_length=length)
        text = written._replace(settings=settings).text(args.out)
        args.out.write_text(text, encoding="utf-8")
    report_data(args, found, written.classes)
    report_config(args, written.classes, settings, script, written.preset, hours)


def _choose(found: Survey, named: ClassOptions, force: bool) -> Classes:
    """Choose the classes; for doubtful ones, print the values and a command that names them."""
    try:
        return choose_classes(found.masks, named)
    except Doubt as doubt:
        print(table(found.masks.values, doubt.labels, found.splits))
        print(f"such as  {again(doubt.labels)}{' --force' if force else ''}")
        raise UserError(f"{doubt}; correct the command above and run it") from None
